"""Checkpoints of a training run that are whole or absent, and where to go on from.

The Trainer writes a checkpoint file by file; a process killed meanwhile leaves a folder that looks
like one. A checkpoint counts here only once ``COMPLETE`` stands in it, written after everything
else is on the disk. Knows nothing about what a checkpoint holds.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from biomistral.artifacts import flush
from biomistral.training import processes

COMPLETE = "complete"


def mark_complete(checkpoint: Path) -> None:
    """Flush a finished checkpoint to the disk, then mark it as whole."""
    for path in [*checkpoint.rglob("*"), checkpoint]:
        flush(path)
    (checkpoint / COMPLETE).touch()
    flush(checkpoint)


def step_of(checkpoint: Path | None) -> int:
    """Steps that were done when a checkpoint was saved; 0 without one."""
    return int(checkpoint.name.removeprefix("checkpoint-")) if checkpoint else 0


def newest_complete(folder: Path, *, sweep: bool = True) -> Path | None:
    """Return the newest whole checkpoint in ``folder``; with ``sweep`` remove those not whole."""
    whole = []
    for checkpoint in folder.glob("checkpoint-*"):
        if (checkpoint / COMPLETE).exists():
            whole.append(checkpoint)
        elif sweep:
            shutil.rmtree(checkpoint)
    return max(whole, key=step_of, default=None)


def newest_of_all(folder: Path) -> Path | None:
    """Do the same in each of several processes; the first one sweeps.

    It alone: another machine may see late that a checkpoint is whole.
    """
    if processes.is_first():
        newest_complete(folder)
    processes.wait_for_all()
    return newest_complete(folder, sweep=False)
