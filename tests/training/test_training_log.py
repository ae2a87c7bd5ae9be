from __future__ import annotations

import json

from biomistral.training.training_log import TRAINING_LOG, training_log, write_log


def test_points_are_means_since_the_one_before_and_the_last_step_has_one(tmp_path):
    history = [{"step": 0, "held_out_loss": {"a": 3.0}}]
    history += [{"step": s, "loss": float(s), "learning_rate": s / 10} for s in range(1, 182)]
    history.insert(50, {"step": 49, "held_out_loss": {"a": 2.0}, "held_out_loss_by_language": {}})
    history.append({"step": 181, "train_runtime": 5.0})
    lines = training_log(history, 181, lambda entry: entry["step"] * 7)
    losses = [line for line in lines if "loss" in line]
    assert [line["step"] for line in losses] == [*range(3, 181, 3), 181]
    assert losses[0] == {"step": 3, "tokens": 21, "loss": 2.0, "learning_rate": 0.3}
    assert losses[-1]["loss"] == 181.0
    assert [line["step"] for line in lines if "held_out_loss" in line] == [0, 49]
    assert not any("train_runtime" in line for line in lines)
    write_log(tmp_path, lines)
    read = [json.loads(line) for line in (tmp_path / TRAINING_LOG).read_text().splitlines()]
    assert read == lines


def test_further_measures_are_means_too_under_names_of_their_own():
    history = [
        {"step": step, "loss": float(step), "reward": 2.0 * step, "learning_rate": 1 / step}
        for step in range(1, 121)
    ]
    log = training_log(history, 120, lambda entry: 10 * entry["step"], {"r": "reward"})
    assert len(log) == 60
    assert log[0] == {"step": 2, "tokens": 20, "learning_rate": 0.5, "loss": 1.5, "r": 3.0}
