"""Training in several processes from the command line: the launch line, and what each process may do.

The pipeline runs in one process. For a model that is trained it starts itself again by torchrun, for
this one step, and waits. On several machines a user starts that line on each. Knows nothing about
how a model is trained.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from biomistral.errors import InputError, ModelError
from biomistral.pipeline import Step, training_needs
from biomistral.pipeline.running import TRAINED
from biomistral.recipe import Recipe
from biomistral.training.processes import is_first, launch_command, num_processes

__all__ = [
    "Again",
    "check_only_training",
    "is_first",
    "launch",
    "num_processes",
    "show_needs",
]


@dataclass(frozen=True)
class Again:
    """This command, to be started once more in several processes."""

    recipe_file: Path
    out: Path
    changes: tuple[str, ...]
    nproc: int

    def command(self, step: Step) -> list[str]:
        """The line that trains one model."""
        arguments = ["run", str(self.recipe_file), "--out", str(self.out), "--only", step.key]
        for change in self.changes:
            arguments += ["--set", change]
        return launch_command(self.nproc, arguments)


def launch(console: Console, bar: Progress, again: Again, step: Step) -> None:
    """Train one model in several processes. Raises ``ModelError`` if they do not come to an end."""
    command = again.command(step)
    bar.stop()  # the first of the processes has a bar of its own
    console.print(f"  {step.key} in {again.nproc} processes: {shlex.join(command)}", soft_wrap=True)
    cores = str(max(1, (os.cpu_count() or 1) // again.nproc))
    finished = subprocess.run(command, check=False, env={"OMP_NUM_THREADS": cores, **os.environ})
    bar.start()
    if finished.returncode != 0:
        raise ModelError(
            f"{step.key}: training in {again.nproc} processes ended with status "
            f"{finished.returncode}; why is said above. The same command goes on from the last "
            "checkpoint"
        )


def check_only_training(waiting: Iterable[Step]) -> None:
    """Raise ``InputError`` if several processes are to make what one makes."""
    others = [step.key for step in waiting if step.code not in TRAINED]
    if num_processes() > 1 and others:
        raise InputError(
            f"{others[0]}: is not there yet, and {num_processes()} processes (WORLD_SIZE) make only "
            "models that are trained; run the same command without torchrun first, with --only "
            f"{others[-1]}, or let biomistral run --nproc N start the processes"
        )


def show_needs(console: Console, recipe: Recipe, steps: Sequence[Step], nproc: int) -> None:
    """Print what each training step that is shown needs of memory and disk."""
    shown = {step.key for step in steps}
    for key, needs in training_needs(recipe, nproc):
        if key in shown:
            console.print(f"{key}: {needs}", soft_wrap=True)
