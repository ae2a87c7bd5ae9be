"""Training learns, and an interrupted run ends in the same bytes as an undisturbed one."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from biomistral import artifacts
from biomistral.errors import InputError, ModelError
from biomistral.models.rows import PackedRows
from biomistral.recipe.settings import PretrainSettings
from biomistral.training import pretrain, pretraining
from biomistral.training.held_out import held_out_loss

Log = list[dict[str, Any]]


def settings_of(**changes: object) -> PretrainSettings:
    values = {
        "name": "trained",
        "model": "base",
        "epochs": 3,
        "learning_rate": 3e-3,
        "rows_per_step": 4,
        "precision": "float32",
        **changes,
    }
    return PretrainSettings.model_validate(values)


def log_of(folder: Path) -> Log:
    lines = (folder / "training_log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def losses_of(folder: Path) -> list[float]:
    return [line["loss"] for line in log_of(folder) if "loss" in line]


def stop_at(step: int) -> Callable[[float, float | None, str], None]:
    """A listener that interrupts, as ctrl-C does, when ``step`` steps are done."""

    def listen(done: float, total: float | None, text: str) -> None:
        if total is not None and done == step:
            raise KeyboardInterrupt

    return listen


@pytest.fixture(scope="module")
def tokens(make_tokens) -> Path:
    return make_tokens(22, 3)


@pytest.fixture(scope="module")
def trained(tiny_model, tokens, tmp_path_factory) -> Path:
    """A short run: 3 epochs of 22 rows, 4 a step."""
    out = tmp_path_factory.mktemp("trained") / "trained"
    return pretrain(settings_of(), tiny_model, tokens, out)


# --- what comes out -------------------------------------------------------------------------------


def test_the_loss_falls(trained):
    losses = losses_of(trained)
    assert losses[0] == pytest.approx(6.3, abs=0.3)  # log of the vocabulary
    assert losses[-1] < losses[0] - 1


def test_the_log_says_what_happened_at_each_step(trained):
    lines = [line for line in log_of(trained) if "loss" in line]
    assert [line["step"] for line in lines] == list(range(1, 18))
    # 66 rows of 32 tokens: 16 steps of four rows and one of two
    assert [line["tokens"] // 32 for line in lines] == [*range(4, 65, 4), 66]
    assert lines[-1]["tokens"] == 3 * 22 * 32
    rates = [line["learning_rate"] for line in lines]
    assert rates[0] == 3e-3
    assert rates == sorted(rates, reverse=True)


def test_the_held_out_loss_is_measured_from_before_the_first_step_to_after_the_last(
    trained, tiny_model, tokens
):
    measured = {
        line["step"]: line["held_out_loss"] for line in log_of(trained) if "held_out_loss" in line
    }
    assert list(measured) == [0, 3, 6, 9, 12, 15, 17]
    assert all(list(losses) == ["made-up"] for losses in measured.values())
    for folder, step in ((tiny_model, 0), (trained, 17)):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        loss = held_out_loss(model, PackedRows(tokens, "held_out"), rows_per_batch=4).loss
        assert measured[step]["made-up"] == pytest.approx(loss, abs=1e-5)


def test_without_held_out_rows_none_is_measured(tiny_model, make_tokens, tmp_path):
    out = pretrain(settings_of(epochs=1), tiny_model, make_tokens(4), tmp_path / "out")
    assert all("held_out_loss" not in line for line in log_of(out))


def test_plain_transformers_opens_what_was_made(trained, tiny_model):
    model = AutoModelForCausalLM.from_pretrained(trained)
    tokenizer = AutoTokenizer.from_pretrained(trained)
    assert model.dtype == torch.float32
    assert model.config.use_cache is True
    start = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert not torch.equal(model.lm_head.weight, start.lm_head.weight)
    text = "The fever of the (A) 河谷"
    assert tokenizer(text).input_ids == AutoTokenizer.from_pretrained(tiny_model)(text).input_ids
    model.generate(**tokenizer(text, return_tensors="pt"), max_new_tokens=2, do_sample=False)


def test_the_manifest_counts_the_run(trained):
    manifest = artifacts.read_manifest(trained)
    assert manifest is not None
    assert manifest["name"] == "trained"
    counts = manifest["counts"]
    assert (counts["steps"], counts["tokens"]) == (17, 3 * 22 * 32)
    assert counts["final_loss"] == losses_of(trained)[-1]
    assert manifest["threads"] == torch.get_num_threads()


def test_the_card_names_the_base_the_corpus_and_its_licences(trained):
    card = (trained / "README.md").read_text()
    for fact in ("base_model:\n- base\n", "base_model_relation: finetune", "made-up", "CC-BY 3"):
        assert fact in card


def test_nothing_else_is_left_behind(trained):
    assert sorted(path.name for path in trained.parent.iterdir()) == ["trained"]
    assert {path.name for path in trained.iterdir()} == {
        "README.md",
        "config.json",
        "generation_config.json",
        "manifest.json",
        "card.json",
        "model.safetensors",
        "throughput.volatile.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "training_log.jsonl",
    }


def test_two_runs_give_the_same_bytes_wherever_they_are(trained, tiny_model, tokens, tmp_path):
    torch.manual_seed(99)  # the state of the process does not matter
    out = pretrain(settings_of(), tiny_model, tokens, tmp_path / "another" / "place")
    for path in trained.iterdir():
        if path.name not in {"manifest.json", "throughput.volatile.json"}:
            assert (out / path.name).read_bytes() == path.read_bytes(), path.name


def test_nothing_is_printed(tiny_model, tokens, tmp_path, capfd):
    pretrain(settings_of(epochs=0.5), tiny_model, tokens, tmp_path / "out")
    assert capfd.readouterr() == ("", "")


def test_progress_tells_steps_and_loss(tiny_model, tokens, tmp_path):
    told = []
    pretrain(
        settings_of(epochs=0.5),
        tiny_model,
        tokens,
        tmp_path / "out",
        progress=lambda *event: told.append(event),
    )
    assert told[0] == (0, None, "loading the model")
    assert [(done, total) for done, total, _ in told[1:]] == [(1, 3), (2, 3), (3, 3)]
    assert told[-1][2].startswith("steps, loss 6.")


# --- resuming -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_settings() -> dict[str, Any]:
    """95 steps, of which the log joins two and two; the schedule would show a lost step."""
    return {"epochs": 10, "rows_per_step": 2, "warmup_fraction": 0.1}


@pytest.fixture(scope="module")
def long_tokens(make_tokens) -> Path:
    return make_tokens(19, 2)


@pytest.fixture(scope="module")
def undisturbed(tiny_model, long_tokens, long_settings, tmp_path_factory) -> str:
    """Content digest of a run with no interruption and no checkpoint."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    pretrain(settings_of(**long_settings, save_every_steps=1000), tiny_model, long_tokens, out)
    assert len(losses_of(out)) == 48
    return artifacts.content_digest(out)


@pytest.mark.parametrize(
    ("steps", "resumed"),
    [
        ([3], False),  # before the first checkpoint
        ([24], True),  # from step 21, in the middle of two logged steps and of an epoch
        ([7, 22, 23, 92], True),  # again and again; 7 is interrupted before it is saved
        ([95], True),  # after the last step, before the model is saved
    ],
)
def test_an_interrupted_run_ends_in_the_same_bytes(
    steps, resumed, tiny_model, long_tokens, long_settings, undisturbed, tmp_path
):
    out = tmp_path / "out"
    settings = settings_of(**long_settings, save_every_steps=7)
    for step in steps:
        with pytest.raises(KeyboardInterrupt):
            pretrain(settings, tiny_model, long_tokens, out, progress=stop_at(step))
        assert not out.exists()
    pretrain(settings, tiny_model, long_tokens, out)
    assert artifacts.content_digest(out) == undisturbed
    manifest = artifacts.read_manifest(out)
    assert manifest is not None
    assert manifest["resumed"] is resumed


@pytest.mark.parametrize("save_every_steps", [50, 94])
def test_a_run_interrupted_while_it_writes_the_model_adds_no_step(
    save_every_steps, tiny_model, long_tokens, long_settings, undisturbed, tmp_path, monkeypatch
):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    settings = settings_of(**long_settings, save_every_steps=save_every_steps)
    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "write_card", interrupt)
        with pytest.raises(KeyboardInterrupt):
            pretrain(settings, tiny_model, long_tokens, tmp_path / "out")
    out = pretrain(settings, tiny_model, long_tokens, tmp_path / "out")
    assert artifacts.content_digest(out) == undisturbed


@pytest.mark.parametrize(
    "changes",
    [
        {"accumulation_steps": 3, "rows_per_step": 2, "schedule": "constant"},
        {"precision": "mixed"},
        {"gradient_checkpointing": True},
        {"cross_document_attention": True},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_resuming_is_exact_with_other_settings_too(changes, tiny_model, tokens, tmp_path):
    settings = settings_of(**changes, save_every_steps=4)
    whole = pretrain(settings, tiny_model, tokens, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        pretrain(settings, tiny_model, tokens, tmp_path / "out", progress=stop_at(6))
    out = pretrain(settings, tiny_model, tokens, tmp_path / "out")
    assert artifacts.content_digest(out) == artifacts.content_digest(whole)


def test_resuming_is_exact_with_tied_embeddings(make_model, tokens, tmp_path):
    model = make_model(1, tie_word_embeddings=True)
    settings = settings_of(save_every_steps=4)
    whole = pretrain(settings, model, tokens, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        pretrain(settings, model, tokens, tmp_path / "out", progress=stop_at(6))
    out = pretrain(settings, model, tokens, tmp_path / "out")
    assert artifacts.content_digest(out) == artifacts.content_digest(whole)


KILLED = """
import os, signal, sys
from pathlib import Path
from biomistral.recipe.settings import PretrainSettings
from biomistral.training import pretraining, watching

settings, model, corpus, training, saving = sys.argv[1:]
mark_complete = watching.mark_complete

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def listen(done, total, text):
    if total is not None and done == 31:
        die()

def mark(path):
    die() if path.name == "checkpoint-14" else mark_complete(path)

# Each is forked from this process, which has imported everything: an import takes seconds.
for out in (training, saving):
    child = os.fork()
    if not child:
        watching.mark_complete = mark if out == saving else mark_complete
        values = PretrainSettings.model_validate_json(settings)
        pretraining.pretrain(values, Path(model), Path(corpus), Path(out), progress=listen)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL, out
"""


@pytest.mark.slow
def test_a_killed_run_ends_in_the_same_bytes(
    tiny_model, long_tokens, long_settings, undisturbed, tmp_path
):
    settings = settings_of(**long_settings, save_every_steps=7)
    outs = [tmp_path / moment / "out" for moment in ("training", "saving")]
    for out in outs:
        out.parent.mkdir()
    root = Path(__file__).parents[2]
    threads = {"PYTHONPATH": str(root), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    killing = subprocess.run(
        [sys.executable, "-c", KILLED, settings.model_dump_json()]
        + [str(path) for path in (tiny_model, long_tokens, *outs)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, **threads},
    )
    assert killing.returncode == 0, killing.stderr[-4000:]
    whole = {
        "training": ["checkpoint-21", "checkpoint-28"],
        "saving": ["checkpoint-14", "checkpoint-7"],
    }
    for out in outs:
        assert not out.exists()
        [draft] = out.parent.glob(".out.*.partial")
        there = sorted(path.name for path in (draft / artifacts.WORK).iterdir())
        assert there == whole[out.parent.name]
        pretrain(settings, tiny_model, long_tokens, out)
        assert artifacts.content_digest(out) == undisturbed
        assert [path.name for path in out.parent.iterdir()] == ["out"]


# --- settings -------------------------------------------------------------------------------------


def rows_seen(monkeypatch: pytest.MonkeyPatch, run: Callable[[], object]) -> list[tuple[int, ...]]:
    """The rows that a run trains on, each as its ids, in order."""
    seen: list[tuple[int, ...]] = []
    real = pretraining.collate

    def spy(rows, **options):
        seen.extend(tuple(ids.tolist()) for ids, _ in rows)
        return real(rows, **options)

    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "collate", spy)
        run()
    return seen


def test_every_epoch_sees_every_row_once_in_an_order_of_its_own(
    tiny_model, tokens, tmp_path, monkeypatch
):
    seen = rows_seen(
        monkeypatch, lambda: pretrain(settings_of(), tiny_model, tokens, tmp_path / "out")
    )
    epochs = [seen[start : start + 22] for start in (0, 22, 44)]
    in_order = [tuple(ids.tolist()) for ids, _ in PackedRows(tokens)]
    assert len(seen) == 66
    assert all(sorted(epoch) == sorted(in_order) for epoch in epochs)
    assert len({tuple(epoch) for epoch in [*epochs, in_order]}) == 4


def test_the_seed_orders_the_rows_and_that_of_the_settings_comes_first(
    tiny_model, tokens, tmp_path, monkeypatch
):
    def order(name: str, seed: int, own: int | None) -> list[tuple[int, ...]]:
        settings = settings_of(epochs=1, seed=own)
        return rows_seen(
            monkeypatch,
            lambda: pretrain(settings, tiny_model, tokens, tmp_path / name, seed=seed),
        )

    one = order("one", 1, None)
    assert order("two", 2, None) != one
    assert order("three", 2, 1) == one


@pytest.mark.parametrize(
    ("epochs", "rows_per_step", "steps"),
    [(1, 4, 6), (1, 22, 1), (1, 100, 1), (0.01, 4, 1), (1.5, 4, 9), (1.1, 11, 3), (2, 20, 3)],
)
def test_epochs_are_passes_over_the_rows_and_the_last_step_takes_what_is_left(
    epochs, rows_per_step, steps, tokens
):
    run = pretraining._plan(settings_of(epochs=epochs, rows_per_step=rows_per_step), tokens, {}, 1)
    assert run.course.num_steps == steps
    assert len(run.line) == math.ceil(round(epochs * 22, 6))
    assert run.tokens_after(steps) == len(run.line) * 32


def test_ten_rows_and_a_tenth_are_eleven(make_tokens):
    run = pretraining._plan(settings_of(epochs=1.1, rows_per_step=1), make_tokens(10), {}, 1)
    assert run.course.num_steps == 11


def test_a_budget_of_tokens_is_rounded_up_to_a_row(tokens):
    values = {"name": "m", "model": "base", "rows_per_step": 4, "tokens": 40 * 32 - 1}
    run = pretraining._plan(PretrainSettings.model_validate(values), tokens, {}, 1)
    assert (len(run.line), run.course.num_steps, run.tokens_after(10)) == (40, 10, 40 * 32)


def test_accumulated_steps_are_as_one_large_step(tiny_model, tokens, tmp_path):
    one = pretrain(settings_of(rows_per_step=8), tiny_model, tokens, tmp_path / "one")
    two = pretrain(
        settings_of(rows_per_step=4, accumulation_steps=2), tiny_model, tokens, tmp_path / "two"
    )
    assert len(losses_of(one)) == 9  # of 66 rows
    assert losses_of(two) == pytest.approx(losses_of(one), abs=2e-4)
    assert [line["tokens"] for line in log_of(two)] == [line["tokens"] for line in log_of(one)]


def test_gradient_checkpointing_changes_memory_and_not_the_loss(
    trained, tiny_model, tokens, tmp_path
):
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        out = pretrain(
            settings_of(gradient_checkpointing=True), tiny_model, tokens, tmp_path / "out"
        )
    assert losses_of(out) == pytest.approx(losses_of(trained), abs=1e-5)


def test_bfloat16_trains_and_is_saved_as_such(tiny_model, tokens, tmp_path):
    out = pretrain(settings_of(precision="bfloat16"), tiny_model, tokens, tmp_path / "out")
    assert losses_of(out)[-1] < losses_of(out)[0] - 1
    assert {t.dtype for t in load_file(out / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"


def changed_fraction(before: Path, after: Path) -> float:
    """Share of the weights that are no longer what they were, both rounded to bfloat16."""
    old, new = (load_file(folder / "model.safetensors") for folder in (before, after))
    pairs = [(old[name].bfloat16(), new[name].bfloat16()) for name in old]
    changed = sum(int((one != other).sum()) for one, other in pairs)
    return changed / sum(one.numel() for one, _ in pairs)


def test_mixed_precision_keeps_small_steps_that_bfloat16_rounds_away(tiny_model, tokens, tmp_path):
    folders = {}
    for precision in ("float32", "mixed", "bfloat16"):
        settings = settings_of(precision=precision, learning_rate=2e-5, schedule="constant")
        folders[precision] = pretrain(settings, tiny_model, tokens, tmp_path / precision)
    moved = {key: changed_fraction(tiny_model, folder) for key, folder in folders.items()}
    assert moved["mixed"] == pytest.approx(moved["float32"], abs=0.05)
    assert moved["mixed"] > 1.5 * moved["bfloat16"]
    mixed = folders["mixed"]
    assert {t.dtype for t in load_file(mixed / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((mixed / "config.json").read_text())["dtype"] == "bfloat16"
    assert losses_of(mixed) == pytest.approx(losses_of(folders["float32"]), rel=1e-2)
    assert losses_of(mixed) != losses_of(folders["float32"])  # the arithmetic is in bfloat16


def test_across_documents_the_loss_is_another(trained, tiny_model, tokens, tmp_path):
    settings = settings_of(cross_document_attention=True)
    out = pretrain(settings, tiny_model, tokens, tmp_path / "out")
    assert losses_of(out)[0] != pytest.approx(losses_of(trained)[0], abs=1e-4)


def test_the_schedule_rises_and_falls(tiny_model, tokens, tmp_path):
    settings = settings_of(schedule="linear", warmup_fraction=0.5)
    rates = [
        line["learning_rate"]
        for line in log_of(pretrain(settings, tiny_model, tokens, tmp_path / "out"))
        if "loss" in line
    ]
    rising = [3e-3 * step / 8 for step in range(8)]
    falling = [3e-3 * (9 - step) / 9 for step in range(9)]
    assert rates == pytest.approx([*rising, *falling])


# --- what is refused ------------------------------------------------------------------------------


def broken_model(model: Path, folder: Path, value: float) -> Path:
    """A copy of a model with one broken weight."""
    folder.mkdir()
    for path in model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"][3] = value
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize("num_held_out", [0, 2])
def test_a_loss_that_is_no_number_stops_the_run_and_leaves_nothing(
    value, num_held_out, tiny_model, make_tokens, tmp_path
):
    model = broken_model(tiny_model, tmp_path / "broken", value)
    tokens = make_tokens(4, num_held_out)
    with pytest.raises(ModelError, match=r"is nan at step [01]; the model that training starts"):
        pretrain(settings_of(), model, tokens, tmp_path / "out")
    left = {path.name for path in tmp_path.iterdir()} - {"broken"}
    assert left == (set() if num_held_out else {"out.stopped.json"})


def test_the_documents_of_the_step_at_which_a_run_is_stopped_are_kept_until_one_succeeds(
    tiny_model, make_tokens, tmp_path
):
    broken = broken_model(tiny_model, tmp_path / "broken", float("nan"))
    out, tokens, settings = tmp_path / "out", make_tokens(4), settings_of(epochs=1, rows_per_step=2)
    with pytest.raises(
        ModelError, match=r"documents of this step are listed in .*out\.stopped\.json"
    ):
        pretrain(settings, broken, tokens, out)
    kept = json.loads((tmp_path / "out.stopped.json").read_text())
    assert (kept["step"], kept["loss"], len(kept["rows"])) == (1, "nan", 2)
    for row in kept["rows"]:
        assert row["corpus"] == "made-up"
        assert tuple(row["documents"]) == PackedRows(tokens).documents(row["row"])
    pretrain(settings, tiny_model, tokens, out)
    assert not (tmp_path / "out.stopped.json").exists()


def test_a_loss_that_explodes_stops_the_run(tiny_model, make_tokens, tmp_path):
    settings = settings_of(epochs=20, learning_rate=0.9, max_gradient_norm=1e9, schedule="constant")
    with (
        pytest.warns(UserWarning, match=r"learning_rate 0\.9 is likely to make the loss explode"),
        pytest.raises(
            ModelError, match=r"the loss rises, from 6\.\d+ to .*; lower learning_rate or"
        ),
    ):
        pretrain(settings, tiny_model, make_tokens(12), tmp_path / "out")
    assert (tmp_path / "out.stopped.json").exists()


def test_tokens_of_a_larger_vocabulary_are_refused(tiny_model, make_tokens, tmp_path):
    tokens = make_tokens(4, vocabulary_size=5000)
    with pytest.raises(ModelError, match=r"made-up: was cut by a tokenizer of 5000 tokens, the m"):
        pretrain(settings_of(), tiny_model, tokens, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_rows_longer_than_the_context_are_refused(tiny_model, make_tokens, tmp_path):
    tokens = make_tokens(4, length=513)
    with pytest.raises(ModelError, match=r"rows of 513 tokens, the model's context is 512; lower"):
        pretrain(settings_of(), tiny_model, tokens, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_corpus_is_refused(tiny_model, make_tokens, tmp_path):
    with pytest.raises(InputError, match="made-up: has no rows to train on; see the reasons"):
        pretrain(settings_of(), tiny_model, make_tokens(0, 2), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_refused_before_anything_is_loaded(
    tiny_model, tokens, tmp_path, monkeypatch
):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    told = []
    with pytest.raises(
        InputError, match=r"the model trained and its checkpoints need 0\.0 GB, and"
    ):
        pretrain(
            settings_of(), tiny_model, tokens, tmp_path / "out", progress=lambda *x: told.append(x)
        )
    assert told == []
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_is_surely_too_small_is_refused_before_anything_is_loaded(
    tiny_model, tokens, tmp_path, monkeypatch
):
    monkeypatch.setattr("biomistral.training.memory.host_memory_bytes", lambda: 10_000)
    with pytest.raises(ModelError, match=r"trained: training needs about .* the device has 0 MB"):
        pretrain(settings_of(), tiny_model, tokens, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# --- several corpora ------------------------------------------------------------------------------


def test_corpora_are_mixed_by_their_shares_and_each_is_measured(
    tiny_model, tokens, make_tokens, tmp_path
):
    general, unseen = make_tokens(9, 2), make_tokens(3, 4)
    settings = settings_of(
        mix=[{"corpus": "general", "share": 0.25}], held_out=["unseen"], held_out_measurements=2
    )
    others = {"general": general, "unseen": unseen}
    out = pretrain(settings, tiny_model, tokens, tmp_path / "out", others=others)
    lines = log_of(out)
    assert lines[-1]["tokens"] == 88 * 32  # three quarters are 3 x 22 rows
    measured = [line for line in lines if "held_out_loss" in line]
    assert [line["step"] for line in measured] == [0, 11, 22]
    assert set(measured[0]["held_out_loss"]) == {"made-up", "general", "unseen"}
    assert measured[-1]["held_out_loss"]["unseen"] < measured[0]["held_out_loss"]["unseen"]
    card = (out / "README.md").read_text()
    assert "general 0.25" in card
    assert "CC-BY 6" in card
    again = pretrain(settings, tiny_model, tokens, tmp_path / "again", others=others)
    assert artifacts.content_digest(again) == artifacts.content_digest(out)


def test_corpora_of_different_row_length_cannot_be_mixed(tiny_model, tokens, make_tokens, tmp_path):
    settings = settings_of(mix=[{"corpus": "other", "share": 0.1}])
    others = {"other": make_tokens(4, length=48)}
    with pytest.raises(
        InputError, match=r"rows of 48 tokens, those of made-up have 32; corpora th"
    ):
        pretrain(settings, tiny_model, tokens, tmp_path / "out", others=others)


# --- telling --------------------------------------------------------------------------------------


def test_tensorboard_gets_the_curves_outside_the_artefact(trained, tiny_model, tokens, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = settings_of(tensorboard=str(tmp_path / "board"))
    out = pretrain(settings, tiny_model, tokens, tmp_path / "out")
    events = EventAccumulator(str(tmp_path / "board" / "trained")).Reload()
    shown = [event.value for event in events.Scalars("train/loss")]
    assert shown == pytest.approx(losses_of(out))
    assert [event.step for event in events.Scalars("held_out/made-up")] == [0, 3, 6, 9, 12, 15, 17]
    assert artifacts.content_digest(out) == artifacts.content_digest(trained)


def test_speed_is_kept_outside_what_counts_for_the_digest(trained):
    facts = json.loads((trained / "throughput.volatile.json").read_text())
    assert facts["tokens"] == 3 * 22 * 32
    assert facts["tokens_per_second"] > 0
