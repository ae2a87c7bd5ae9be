"""How a tuning run is cut into steps, watched and logged."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from biomistral.errors import InputError, ModelError
from biomistral.recipe.settings import DpoSettings, SftSettings
from biomistral.training import tuning_run
from biomistral.training.checkpointing import COMPLETE


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


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"2 processes \(WORLD_SIZE\), and tuning runs in one"):
        tuning_run.refuse_several_processes()
    monkeypatch.setenv("WORLD_SIZE", "1")
    tuning_run.refuse_several_processes()


def test_a_loss_that_is_no_number_stops_the_run():
    watcher = tuning_run.Watcher(lambda *_: None)
    state = SimpleNamespace(global_step=7)
    with pytest.raises(ModelError, match="the loss is nan at step 7; lower learning_rate"):
        watcher.on_log(None, state, None, logs={"loss": float("nan")})
    state.global_step = 1
    with pytest.raises(ModelError, match="starts from is broken"):
        watcher.on_log(None, state, None, logs={"loss": float("inf")})


def test_nothing_is_saved_after_the_last_step():
    told = []
    watcher = tuning_run.Watcher(lambda *event: told.append(event))
    control = SimpleNamespace(should_save=True)
    watcher.on_step_end(None, SimpleNamespace(global_step=3, max_steps=4), control)
    assert control.should_save
    watcher.on_step_end(None, SimpleNamespace(global_step=4, max_steps=4), control)
    assert not control.should_save
    assert told == [(3, 4, "steps"), (4, 4, "steps")]


def test_what_was_saved_is_marked_as_whole(tmp_path):
    (tmp_path / "checkpoint-5").mkdir()
    arguments = SimpleNamespace(output_dir=str(tmp_path))
    tuning_run.Watcher(lambda *_: None).on_save(arguments, SimpleNamespace(global_step=5), None)
    assert (tmp_path / "checkpoint-5" / COMPLETE).exists()


def test_the_log_joins_steps_and_keeps_the_last_rate():
    history = [
        {"step": step, "loss": float(step), "reward": 2.0 * step, "learning_rate": 1 / step}
        | {"num_input_tokens_seen": 10 * step}
        for step in range(1, 121)
    ]
    history.append({"step": 120, "train_runtime": 3.0})
    log = tuning_run.training_log(
        SimpleNamespace(max_steps=120, log_history=history), {"r": "reward"}
    )
    assert len(log) == 60
    assert log[0] == {"step": 2, "tokens": 20, "learning_rate": 0.5, "loss": 1.5, "r": 3.0}
    assert log[-1]["step"] == 120


def test_cards_of_adapters_say_how_they_were_made():
    settings = settings_of(method="qlora", bits=4, rank=8, targets=["q_proj"])
    card = tuning_run.card_of(settings, "Tuned.", {"Examples": "3"})
    assert card.relation == "adapter"
    assert card.details["Adapter"] == "LoRA, rank 8, alpha 16, on q_proj"
    assert card.details["Base while training"] == "4 bits (bitsandbytes)"
    whole = DpoSettings(name="a", model="base", questions="all", method="full")
    assert tuning_run.card_of(whole, "Tuned.", {}).relation == "finetune"
