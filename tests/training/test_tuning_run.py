"""How a tuning run is cut into steps, watched and logged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from biomistral.errors import InputError, ModelError
from biomistral.recipe.settings import DpoSettings, SftSettings
from biomistral.training import memory, tuning_run
from biomistral.training.lessons import Lesson, Preference


def settings_of(**changes: object) -> SftSettings:
    return SftSettings.model_validate(
        {"name": "tuned", "model": "base", "questions": "all", **changes}
    )


def lesson_of(*ids: int, source: str = "") -> Lesson:
    return Lesson(ids, (False,) * (len(ids) - 1) + (True,), source=source)


def run_of(num_rows: int, tmp_path: Path = Path("out"), **changes: object) -> tuning_run.Run:
    rows = [[lesson_of(1, 2, 3, source=f"row {index}")] for index in range(num_rows)]
    return tuning_run.plan(settings_of(**changes), tmp_path, rows, 3)


def test_of_two_files_of_one_name_both_count(tmp_path):
    files = [tmp_path / "a/data.jsonl", tmp_path / "b/data.jsonl"]
    marks = set()
    for texts in (("1", "2"), ("3", "2"), ("1", "3")):
        for path, text in zip(files, texts, strict=True):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        origin = tuning_run.origin_of(settings_of(), tmp_path / "a", files, [], None, 1)
        marks.add(origin.inputs["data/0/data.jsonl"] + origin.inputs["data/1/data.jsonl"])
    assert len(marks) == 3


@pytest.fixture
def learner() -> SimpleNamespace:
    return SimpleNamespace(_no_split_modules=["Layer"])


def test_warm_up_is_a_share_of_the_steps(learner):
    run = run_of(32, warmup_fraction=0.25, schedule="constant")
    arguments = tuning_run.arguments_of(run, Path("work"), learner)
    assert (arguments["max_steps"], arguments["warmup_steps"]) == (8, 2)
    assert arguments["lr_scheduler_type"] == "constant_with_warmup"
    assert arguments["bf16"] is True
    assert arguments["seed"] == 3


def test_processes_share_a_step_and_drop_out_by_seeds_of_their_own(learner, monkeypatch):
    run = run_of(32, rows_per_step=4, accumulation_steps=2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    arguments = tuning_run.arguments_of(run, Path("work"), learner)
    shared = (arguments["per_device_train_batch_size"], arguments["gradient_accumulation_steps"])
    assert shared == (4, 1)
    assert (arguments["max_steps"], arguments["seed"]) == (4, 4)
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ModelError, match="cannot be shared evenly by 3 processes"):
        tuning_run.arguments_of(run, Path("work"), learner)


def test_tokens_are_those_of_examples_whatever_fills_a_step_up():
    run = run_of(5, rows_per_step=4)
    assert [run.tokens_after(step) for step in range(3)] == [0, 12, 15]
    pairs = [Preference((1, 2), (3,), (4, 5), f"pair {index}") for index in range(5)]
    settings = DpoSettings(name="a", model="base", questions="all", rows_per_step=4)
    run = tuning_run.plan(settings, Path("out"), pairs, 3)
    assert [run.tokens_after(step) for step in range(3)] == [0, 28, 56]
    assert sorted(
        run.examples_of_step(1)["examples"] + run.examples_of_step(2)["examples"][:1]
    ) == [f"pair {index}" for index in range(5)]


def test_what_is_too_long_is_left_out_and_nothing_left_is_an_error():
    assert tuning_run.short_enough(["a", "bbb", "cc"], len, 2, "x") == ["a", "cc"]
    said = r"x: there is nothing to learn from that fits into 2 tokens \(2 examples, the shortest"
    with pytest.raises(InputError, match=said):
        tuning_run.short_enough(["aaa", "bbbb"], len, 2, "x")


def test_an_example_is_no_longer_than_the_models_context_though_rows_may_be():
    learner = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=64))
    assert tuning_run.limit_of(settings_of(sequence_length=128), learner) == (
        64,
        "longer than the model's context",
    )
    assert tuning_run.limit_of(settings_of(sequence_length=32), learner) == (
        32,
        "longer than sequence_length",
    )


def test_a_watcher_counts_the_tokens_and_stops_at_a_rise_with_the_examples(tmp_path):
    run = run_of(160, tmp_path / "tuned", largest_loss_rise=0.5)
    watcher = tuning_run.watcher(run, lambda *_: None)
    state = SimpleNamespace(global_step=0, max_steps=40, log_history=[{"loss": 1.0}] * 20)
    watcher.on_train_begin(None, state, None, model=None)
    state.global_step = 21
    watcher.on_step_end(None, state, SimpleNamespace(should_save=True), model=None)
    assert watcher.meter.facts()["tokens"] == 21 * 4 * 3

    def go_on() -> None:
        for _ in range(20):
            watcher.on_log(None, state, None, logs={"loss": 2.0})

    said = (
        r"the loss rises, from 1\.000 to 2\.000.*examples of this step are listed in .*tuned\.stop"
    )
    with pytest.raises(ModelError, match=said):
        go_on()
    kept = json.loads((tmp_path / "tuned.stopped.json").read_text())
    assert (kept["step"], len(kept["examples"])) == (21, 4)
    assert set(kept["examples"]) < {f"row {index}" for index in range(160)}


def test_checkpoints_that_are_kept_are_a_setting(learner):
    arguments = tuning_run.arguments_of(run_of(32, keep_checkpoints=5), Path("w"), learner)
    assert arguments["save_total_limit"] == 5


def test_what_surely_does_not_fit_is_refused_before_it_is_loaded(tiny_model, tmp_path, monkeypatch):
    settings = settings_of(method="full", save_every_steps=1)
    tuning_run.check_room(settings, tiny_model, tmp_path / "out", 8)
    monkeypatch.setattr(memory, "device_bytes", lambda: 10**5)
    with pytest.raises(
        ModelError,
        match=r"tuned: training needs about .*; start it on more GPUs .*; set method: qlora",
    ):
        tuning_run.check_room(settings, tiny_model, tmp_path / "out", 8)
    monkeypatch.undo()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match="tuned and its checkpoints need"):
        tuning_run.check_room(settings, tiny_model, tmp_path / "out", 8)


def test_cards_of_adapters_say_how_they_were_made():
    settings = settings_of(method="qlora", bits=4, rank=8, targets=["q_proj"])
    card = tuning_run.card_of(settings, "Tuned.", {"Examples": "3"})
    assert card.relation == "adapter"
    assert card.details["Adapter"] == "LoRA, rank 8, alpha 16, on q_proj"
    assert card.details["Base while training"] == "4 bits (bitsandbytes)"
    whole = DpoSettings(name="a", model="base", questions="all", method="full")
    assert tuning_run.card_of(whole, "Tuned.", {}).relation == "finetune"
