"""The log of a training run that is kept with the model: its curves, without clock or machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

TRAINING_LOG = "training_log.jsonl"
_LOGS_A_RUN = 60  # points on a training curve


def training_log(
    history: Iterable[Mapping[str, Any]], num_steps: int, tokens_after: Callable[[int], int]
) -> list[dict[str, Any]]:
    """Held-out losses where they were measured, mean loss and last learning rate of some steps.

    ``history`` is the Trainer's. A loss at one step is the mean since the one before.
    """
    every = max(1, round(num_steps / _LOGS_A_RUN))
    lines: list[dict[str, Any]] = []
    losses: list[float] = []
    for entry in history:
        step = entry["step"]
        line = {"step": step, "tokens": tokens_after(step)}
        measured = {key: entry[key] for key in entry if key.startswith("held_out")}
        if measured:
            lines.append({**line, **measured})
        elif "loss" in entry:
            losses.append(entry["loss"])
            if step % every == 0 or step == num_steps:
                rate = entry["learning_rate"]
                lines.append({**line, "loss": fmean(losses), "learning_rate": rate})
                losses.clear()
    return lines


def write_log(folder: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write a log into the folder of a model."""
    text = "".join(f"{json.dumps(line, sort_keys=True)}\n" for line in lines)
    (folder / TRAINING_LOG).write_text(text, encoding="utf-8")
