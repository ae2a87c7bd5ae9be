"""One training run in several processes: who writes, who waits, and how they are started.

Processes are started by torchrun (or accelerate launch), which sets ``RANK`` and ``WORLD_SIZE``.
Only the first one writes an artefact; the others join the training. Knows nothing about models.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from biomistral import artifacts
from biomistral.artifacts import Draft, Origin


def num_processes() -> int:
    """Processes of this run, on all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which of the processes this is, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_first() -> bool:
    """Whether this is the process that writes."""
    return rank() == 0


def connect() -> None:
    """Let the processes of a run find each other; does nothing in one process."""
    if num_processes() == 1:
        return
    import torch
    from accelerate import PartialState

    # Through accelerate, which the Trainer uses: a group of another making would be refused there.
    PartialState(
        cpu=not torch.cuda.is_available(), backend=None if torch.cuda.is_available() else "gloo"
    )


def wait_for_all() -> None:
    """Wait until every process has come here."""
    if num_processes() > 1:
        import torch.distributed

        torch.distributed.barrier()


@contextlib.contextmanager
def shared_draft(out: Path, origin: Origin) -> Iterator[Draft]:
    """Open the draft of an artefact in the first process, and its work folder in all.

    What the others write to ``draft.folder`` is nobody's. All leave when the artefact is published.
    """
    if is_first():
        with artifacts.create(out, origin, resume=True) as draft:
            wait_for_all()
            yield draft
        wait_for_all()
        return
    wait_for_all()
    folder = artifacts.draft_folder(out, origin)
    yield Draft(folder=folder, work=folder / artifacts.WORK)
    wait_for_all()


def note_machine(draft: Draft) -> None:
    """Say in the manifest where a model was trained, and whether another run gives the same."""
    import torch

    draft.device = "cuda:0" if torch.cuda.is_available() else "cpu"
    draft.threads = torch.get_num_threads()
    if draft.device != "cpu":
        draft.not_deterministic = "GPU kernels of the backward pass add in varying order"
    elif num_processes() > 1:
        draft.not_deterministic = "several processes add gradients in another order than one"


def launch_command(num_processes: int, arguments: list[str]) -> list[str]:
    """The command that runs ``biomistral`` with ``arguments`` in several processes of this machine."""
    import sys

    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*launcher, f"--nproc-per-node={num_processes}", "-m", "biomistral", *arguments]
