from __future__ import annotations

from types import SimpleNamespace

import pytest

from biomistral.errors import ModelError
from biomistral.training.held_out import HeldOutLoss
from biomistral.training.watching import Watch, Watcher


def state_at(step: int, history: list[dict[str, object]] | None = None) -> SimpleNamespace:
    return SimpleNamespace(global_step=step, max_steps=10, log_history=history or [])


def watch_of(**changes: object) -> Watch:
    values = {
        "progress": lambda *_: None,
        "tokens_seen": lambda state: state.global_step * 5,
        **changes,
    }
    return Watch(**values)


def test_what_is_measured_goes_to_the_history_with_its_languages():
    found = {"a": HeldOutLoss(2.0, {"en": 1.0, "fr": 3.0}), "b": HeldOutLoss(4.0)}
    measure = {name: lambda _model, name=name: found[name] for name in found}
    told = []
    trackers = SimpleNamespace(tell=lambda step, values: told.append((step, values)))
    watcher = Watcher(watch_of(measure=measure, measure_every=4, trackers=trackers))
    state = state_at(0)
    watcher.on_train_begin(None, state, None, model=None)
    for step in range(1, 11):
        state.global_step = step
        watcher.on_step_end(None, state, SimpleNamespace(should_save=True), model=None)
    assert [entry["step"] for entry in state.log_history] == [0, 4, 8, 10]
    assert state.log_history[0]["held_out_loss"] == {"a": 2.0, "b": 4.0}
    assert state.log_history[0]["held_out_loss_by_language"] == {"a": {"en": 1.0, "fr": 3.0}}
    assert (0, {"held_out/a/en": 1.0, "held_out/a/fr": 3.0}) in told


def test_after_an_interruption_the_losses_before_it_still_count():
    before = [{"step": s, "loss": 2.0} for s in range(1, 31)]
    kept = []
    watch = watch_of(largest_loss_rise=1.0, keep_evidence=lambda *e: kept.append(e) or "; there")
    watcher = Watcher(watch)
    watcher.on_train_begin(None, state_at(30, before), None, model=None)

    def go_on() -> None:
        for step in range(31, 60):
            watcher.on_log(None, state_at(step), None, logs={"loss": 9.0})

    with pytest.raises(ModelError, match=r"the loss rises, from 2\.000 to 9\.000 .*; there"):
        go_on()
    assert len(kept) == 1


def test_a_rise_is_left_alone_where_the_settings_say_so():
    watcher = Watcher(watch_of(largest_loss_rise=None))
    for step in range(1, 60):
        watcher.on_log(None, state_at(step), None, logs={"loss": float(step)})


def test_at_the_end_nothing_is_saved_for_there_is_nothing_to_resume():
    control = SimpleNamespace(should_save=True)
    Watcher(watch_of()).on_step_end(None, state_at(10), control, model=None)
    assert control.should_save is False
