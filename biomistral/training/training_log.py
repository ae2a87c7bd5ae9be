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
    history: Iterable[Mapping[str, Any]],
    num_steps: int,
    tokens_at: Callable[[Mapping[str, Any]], int],
    measures: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Held-out losses where they were measured, mean loss and last learning rate of some steps.

    ``history`` is the Trainer's, ``tokens_at`` says how many had been seen at an entry. A loss at one
    step is the mean since the one before; so are ``measures``, which name logged values by the name
    that they get. Nothing depends on the clock.
    """
    every = max(1, round(num_steps / _LOGS_A_RUN))
    lines: list[dict[str, Any]] = []
    means = {"loss": "loss", **(measures or {})}
    since: list[Mapping[str, Any]] = []
    for entry in history:
        step = entry["step"]
        measured = {key: entry[key] for key in entry if key.startswith("held_out")}
        if measured:
            lines.append({"step": step, "tokens": tokens_at(entry), **measured})
        elif "loss" in entry:
            since.append(entry)
            if step % every == 0 or step == num_steps:
                lines.append(
                    {
                        "step": step,
                        "tokens": tokens_at(entry),
                        "learning_rate": entry["learning_rate"],
                        **{name: fmean(e[key] for e in since) for name, key in means.items()},
                    }
                )
                since.clear()
    return lines


def write_log(folder: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write a log into the folder of a model."""
    text = "".join(f"{json.dumps(line, sort_keys=True)}\n" for line in lines)
    (folder / TRAINING_LOG).write_text(text, encoding="utf-8")
