"""Fine-tuning learns answers, and an interrupted run ends in the same bytes as another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from biomistral import artifacts
from biomistral.errors import InputError, ModelError
from biomistral.models.adapters import is_adapter
from biomistral.ngrams import WIDTH, Runs, write_runs
from biomistral.recipe.settings import SftSettings
from biomistral.training import attention, fine_tune
from biomistral.training.answer_head import Answers, head_of, states_at_answers
from biomistral.training.cross_entropy import IGNORED
from biomistral.training.fine_tuning import attend_within_examples
from biomistral.training.lessons import collate_lessons, lessons_of
from biomistral.training.low_rank import load_learner

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }}{{ eos_token }}"
    "{% else %}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}"
)


def settings_of(**changes: object) -> SftSettings:
    values = {
        "name": "tuned",
        "model": "base",
        "questions": "all",
        "epochs": 8,
        "learning_rate": 1e-2,
        "rows_per_step": 1,
        "sequence_length": 128,
        "precision": "float32",
        # So that an adapter learns in a few steps.
        **({} if changes.get("method") == "full" else {"alpha": 128}),
        **changes,
    }
    return SftSettings.model_validate(values)


def answer_logits(model, batch) -> torch.Tensor:
    read = {name: batch[name] for name in ("input_ids", "position_ids", "documents")}
    states = states_at_answers(model, {**read, "use_cache": False}, Answers(batch["labels"]).due)
    return head_of(model)(states)


def log_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]


def stop_at(step: int):
    def listen(done: float, total: float | None, text: str) -> None:
        if total is not None and done == step:
            raise KeyboardInterrupt

    return listen


@pytest.fixture(scope="module")
def tuned(tiny_model, asked, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("tuned") / "tuned"
    return fine_tune(settings_of(), tiny_model, out, requests=asked)


def test_the_loss_falls_and_an_adapter_comes_out(tuned):
    losses = [line["loss"] for line in log_of(tuned)]
    assert losses[-1] < losses[0] - 0.6  # all that a frozen, random head lets through
    assert is_adapter(tuned)
    assert {path.name for path in tuned.iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "card.json",
        "manifest.json",
        "throughput.volatile.json",
        "training_log.jsonl",
    }


def test_the_curve_is_seen_on_tensorboard(tiny_model, asked, tmp_path):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    settings = settings_of(epochs=2, tensorboard=str(tmp_path / "board"))
    out = fine_tune(settings, tiny_model, tmp_path / "out", requests=asked)
    events = accumulators.EventAccumulator(str(tmp_path / "board" / "tuned")).Reload()
    shown = [event.value for event in events.Scalars("train/loss")]
    assert shown == pytest.approx([line["loss"] for line in log_of(out)])


def test_an_exploding_loss_stops_the_run_and_an_odd_rate_is_warned_of(tiny_model, asked, tmp_path):
    settings = settings_of(method="full", learning_rate=0.9, epochs=20, max_gradient_norm=1e9)
    with (
        pytest.warns(UserWarning, match=r"learning_rate 0\.9 is likely to make the loss explode"),
        pytest.raises(ModelError, match="the loss rises, from"),
    ):
        fine_tune(settings, tiny_model, tmp_path / "out", requests=asked)
    assert not (tmp_path / "out").exists()


def test_peft_loads_the_adapter_and_it_learned_the_answers(tuned, tiny_model, asked, tokenizer):
    import peft

    batch = collate_lessons([[lesson] for lesson in lessons_of(tokenizer, asked)])
    targets = batch["labels"][:, 1:]
    targets = targets[targets != IGNORED]
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    loss = {}
    with torch.no_grad():
        loss["base"] = torch.nn.functional.cross_entropy(answer_logits(base, batch), targets)
        model = peft.PeftModel.from_pretrained(base, tuned).eval()
        loss["tuned"] = torch.nn.functional.cross_entropy(answer_logits(model, batch), targets)
    assert loss["tuned"] < loss["base"] - 0.6


def test_counts_and_card_say_what_was_done(tuned):
    manifest = artifacts.read_manifest(tuned)
    assert manifest["kind"] == "adapter"
    counts = manifest["counts"]
    assert (counts["examples"], counts["left_out"]) == (12, {})
    assert counts["steps"] == 8 * counts["rows"]
    card = (tuned / "README.md").read_text()
    for fact in (
        "base_model_relation: adapter",
        "LoRA, rank 16, alpha 128",
        "fevers 12",
        "q\\_proj",
    ):
        assert fact in card


def test_two_runs_give_the_same_bytes_wherever_they_are(tuned, tiny_model, asked, tmp_path):
    torch.manual_seed(99)
    out = fine_tune(settings_of(), tiny_model, tmp_path / "another" / "place", requests=asked)
    assert artifacts.content_digest(out) == artifacts.content_digest(tuned)


def test_nothing_is_printed(tiny_model, asked, tmp_path, capfd):
    fine_tune(settings_of(epochs=0.5), tiny_model, tmp_path / "out", requests=asked)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("method", ["lora", "full"])
def test_examples_of_a_row_are_computed_apart_and_not_masked(method, tiny_model, asked, tokenizer):
    lessons = lessons_of(tokenizer, asked[:5])
    batch = collate_lessons([lessons[:3], lessons[3:]])
    plain = load_learner(settings_of(method=method), tiny_model, 1).eval()
    expected = answer_logits(plain, batch)
    attend_within_examples(plain)
    assert plain.config._attn_implementation == attention.NAME
    torch.testing.assert_close(answer_logits(plain, batch), expected, atol=1e-5, rtol=1e-5)


def test_a_model_whose_attention_is_not_known_keeps_its_own(tiny_model):
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    model.config.model_type = "gemma2"
    attend_within_examples(model)
    assert model.config._attn_implementation != attention.NAME


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "full", "learning_rate": 3e-3},
        {"method": "full", "learning_rate": 3e-3, "precision": "mixed"},
        {"method": "qlora", "bits": 8},
        {"method": "qlora", "bits": 4, "precision": "mixed"},
        {"gradient_checkpointing": True, "packing": False},
        {"accumulation_steps": 3, "schedule": "constant"},
    ],
    ids=str,
)
def test_every_way_of_tuning_learns(changes, tiny_model, asked, tmp_path):
    out = fine_tune(settings_of(**changes), tiny_model, tmp_path / "out", requests=asked)
    losses = [line["loss"] for line in log_of(out)]
    assert losses[-1] < losses[0] - 0.6


def test_full_fine_tuning_writes_a_model_that_transformers_opens(tiny_model, asked, tmp_path):
    settings = settings_of(method="full", precision="mixed", epochs=0.5)
    out = fine_tune(settings, tiny_model, tmp_path / "out", requests=asked)
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.dtype == torch.bfloat16
    assert model.config.use_cache is True
    assert AutoTokenizer.from_pretrained(out)("The fever").input_ids
    assert artifacts.read_manifest(out)["kind"] == "model"


def test_accumulating_changes_nothing_but_rounding(tiny_model, asked, tmp_path):
    """The loss is the mean over the answer tokens of a step, however it is cut."""
    outs = []
    for rows, passes in ((4, 1), (2, 2), (1, 4)):
        settings = settings_of(
            rows_per_step=rows, accumulation_steps=passes, packing=False, epochs=1, dropout=0.0
        )
        out = fine_tune(settings, tiny_model, tmp_path / f"out-{rows}", requests=asked[:12])
        outs.append(out)
    first, *others = (load_file(out / "adapter_model.safetensors") for out in outs)
    for other in others:
        for name, tensor in first.items():
            torch.testing.assert_close(other[name], tensor, atol=2e-4, rtol=1e-2)


# --- calibrating ----------------------------------------------------------------------------------


def confidence(folder: Path, model: Path, asked, tokenizer) -> float:
    """Mean of the larger of the two letters' renormalised probabilities."""
    import peft

    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    learner = peft.PeftModel.from_pretrained(base, folder).eval()
    batch = collate_lessons([[lesson] for lesson in lessons_of(tokenizer, asked)])
    with torch.no_grad():
        logits = answer_logits(learner, batch)
    is_letter = (batch["letters"] >= 0).any(-1)
    of_letters = logits[is_letter].gather(-1, batch["letters"][is_letter])
    return float(of_letters.softmax(-1).amax(-1).mean())


@pytest.mark.parametrize(
    "changes",
    [{"entropy_weight": 2.0}, {"answer_smoothing": 0.8}, {"jeffreys_weight": 20.0}],
    ids=str,
)
def test_what_is_against_overconfidence_makes_less_sure(
    changes, tuned, tiny_model, asked, tokenizer, tmp_path
):
    out = fine_tune(settings_of(**changes), tiny_model, tmp_path / "out", requests=asked)
    plain = confidence(tuned, tiny_model, asked, tokenizer)
    assert confidence(out, tiny_model, asked, tokenizer) < plain - 0.05


def test_full_tuning_can_stay_near_its_start_too(tiny_model, asked, tmp_path):
    start = load_file(tiny_model / "model.safetensors")
    moved = {}
    for weight in (0.0, 100.0):
        settings = settings_of(method="full", learning_rate=1e-3, jeffreys_weight=weight)
        out = fine_tune(settings, tiny_model, tmp_path / str(weight), requests=asked)
        moved[weight] = log_of(out)[-1]["loss"]
        assert load_file(out / "model.safetensors").keys() == start.keys()
    assert moved[100.0] > moved[0.0]


# --- data -----------------------------------------------------------------------------------------


@pytest.fixture
def chatty_model(tiny_model, tmp_path) -> Path:
    folder = tmp_path / "chatty"
    folder.mkdir()
    for path in tiny_model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def test_conversations_are_learned_without_those_that_hold_a_test(chatty_model, tmp_path):
    long = "In the third valley a healer gave her patient the bark of a grey willow at dawn"
    write_runs(tmp_path / "runs.parquet", [np.unique(Runs().of(long))], WIDTH)
    talks = [
        [{"role": "user", "content": text}, {"role": "assistant", "content": "Bark."}]
        for text in ("What helps?", long, "And rest? " * 100)
    ]
    data = tmp_path / "chat.jsonl"
    data.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))
    settings = settings_of(questions=None, data=str(data))
    out = fine_tune(settings, chatty_model, tmp_path / "out", test_runs=tmp_path / "runs.parquet")
    counts = artifacts.read_manifest(out)["counts"]
    assert counts["examples"] == 1
    assert counts["left_out"] == {
        "overlap with test questions": 1,
        "longer than sequence_length": 1,
    }
    assert "chat.jsonl" in (out / "README.md").read_text()


def test_conversations_need_a_chat_template(tiny_model, tmp_path):
    data = tmp_path / "chat.jsonl"
    talk = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    data.write_text(json.dumps({"messages": talk}))
    settings = SftSettings(name="tuned", model="base", data=[str(data)])
    with pytest.raises(ModelError, match="has no chat template"):
        fine_tune(settings, tiny_model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_that_fits_is_an_error(tiny_model, asked, tmp_path):
    with pytest.raises(InputError, match="raise sequence_length"):
        fine_tune(settings_of(sequence_length=16), tiny_model, tmp_path / "out", requests=asked)


# --- resuming -------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"method": "full"}], ids=str)
def test_an_interrupted_run_ends_in_the_same_bytes(changes, tiny_model, asked, tmp_path):
    settings = settings_of(**changes, save_every_steps=4)
    whole = fine_tune(settings, tiny_model, tmp_path / "whole", requests=asked)
    for step in (6, 17):
        with pytest.raises(KeyboardInterrupt):
            fine_tune(
                settings, tiny_model, tmp_path / "out", requests=asked, progress=stop_at(step)
            )
        assert not (tmp_path / "out").exists()
    out = fine_tune(settings, tiny_model, tmp_path / "out", requests=asked)
    assert artifacts.content_digest(out) == artifacts.content_digest(whole)
    assert artifacts.read_manifest(out)["resumed"] is True


KILLED = """
import os, pickle, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from biomistral.recipe.settings import SftSettings
from biomistral.training import attention, fine_tune

def listen(done, total, text):
    if total is not None and done == 10:
        os.kill(os.getpid(), signal.SIGKILL)

requests = pickle.loads(Path(sys.argv[5]).read_bytes())
settings = SftSettings.model_validate_json(sys.argv[2])
fine_tune(settings, Path(sys.argv[3]), Path(sys.argv[4]), requests=requests, progress=listen)
"""


@pytest.mark.slow
def test_a_killed_run_ends_in_the_same_bytes(tiny_model, asked, tmp_path):
    import pickle

    settings = settings_of(save_every_steps=4)
    whole = fine_tune(settings, tiny_model, tmp_path / "whole", requests=asked)
    (tmp_path / "asked").write_bytes(pickle.dumps(asked))
    out = tmp_path / "out"
    text = settings.model_dump_json()
    arguments = [Path(__file__).parents[2], text, tiny_model, out, tmp_path / "asked"]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, arguments)],
        check=False,
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not out.exists()
    [draft] = tmp_path.glob(".out.*.partial")
    checkpoints = {path.name for path in (draft / artifacts.WORK).iterdir()}
    assert checkpoints == {"checkpoint-4", "checkpoint-8"}
    fine_tune(settings, tiny_model, out, requests=asked)
    assert artifacts.content_digest(out) == artifacts.content_digest(whole)
