"""How a tuning run is cut into steps, watched and logged."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from biomistral.errors import InputError, ModelError
from biomistral.recipe.settings import DpoSettings, SftSettings
from biomistral.training import memory, tuning_run


def settings_of(**changes: object) -> SftSettings:
    return SftSettings.model_validate(
        {"name": "tuned", "model": "base", "questions": "all", **changes}
    )


@pytest.mark.parametrize(
    ("changes", "num_rows", "steps"),
    [
        ({}, 8, 2),
        ({}, 9, 3),  # the last step has one row
        ({"epochs": 3, "accumulation_steps": 2}, 9, 6),
        ({"epochs": 1.1, "rows_per_step": 1}, 10, 11),  # more than 11 in binary
        ({"epochs": 0.01}, 9, 1),
    ],
)
def test_steps_are_epochs_over_rows(changes, num_rows, steps):
    assert tuning_run.num_steps(settings_of(**changes), num_rows) == steps


def test_warm_up_is_a_share_of_the_steps():
    arguments = tuning_run.arguments_of(
        settings_of(warmup_fraction=0.25, schedule="constant"), Path("work"), 3, 32
    )
    assert (arguments["max_steps"], arguments["warmup_steps"]) == (8, 2)
    assert arguments["lr_scheduler_type"] == "constant_with_warmup"
    assert arguments["bf16"] is True
    assert arguments["seed"] == 3


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


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"2 processes \(WORLD_SIZE\), and tuning runs in one"):
        tuning_run.refuse_several_processes()
    monkeypatch.setenv("WORLD_SIZE", "1")
    tuning_run.refuse_several_processes()


def test_a_watcher_counts_the_tokens_that_the_trainer_counts_and_stops_at_a_rise():
    watcher = tuning_run.watcher(settings_of(largest_loss_rise=0.5), lambda *_: None)
    state = SimpleNamespace(
        global_step=0, max_steps=100, num_input_tokens_seen=0, log_history=[{"loss": 1.0}] * 20
    )
    watcher.on_train_begin(None, state, None, model=None)
    state.num_input_tokens_seen, state.global_step = 70, 21
    watcher.on_step_end(None, state, SimpleNamespace(should_save=True), model=None)
    assert watcher.meter.facts()["tokens"] == 70

    def go_on() -> None:
        for _ in range(20):
            watcher.on_log(None, state, None, logs={"loss": 2.0})

    with pytest.raises(ModelError, match=r"the loss rises, from 1\.000 to 2\.000"):
        go_on()


def test_checkpoints_that_are_kept_are_a_setting():
    assert (
        tuning_run.arguments_of(settings_of(keep_checkpoints=5), Path("w"), 3, 32)[
            "save_total_limit"
        ]
        == 5
    )


def test_what_surely_does_not_fit_is_refused_before_it_is_loaded(tiny_model, tmp_path, monkeypatch):
    settings = settings_of(method="full", save_every_steps=1)
    tuning_run.check_room(settings, tiny_model, tmp_path / "out", 8)
    monkeypatch.setattr(memory, "device_bytes", lambda: 10**5)
    with pytest.raises(ModelError, match=r"tuned: training needs about .*; set method: qlora"):
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
