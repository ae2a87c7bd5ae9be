"""What all commands that take long do on a terminal: a bar, and a way to be stopped (``stopping``).

Knows nothing about what is done.
"""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from biomistral import progress as listening
from biomistral.cli.stopping import interrupt_on_termination

__all__ = ["bar", "interrupt_on_termination", "listener"]


def bar(console: Console) -> Progress:
    """Return a bar that goes away when it is done, with the time gone and the time left."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[text]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
        console=console,
        transient=True,
        speed_estimate_period=300,  # seconds; tasks differ in the length of their questions
    )


def listener(shown: Progress, label: str) -> listening.Progress:
    """Return a listener whose news are a line of the bar."""
    task = shown.add_task(label, total=None, text="")

    def listen(done: float, total: float | None, text: str) -> None:
        counted = f"{done:g} of {total:g} {text}" if total is not None else text
        shown.update(task, completed=done, total=total, text=counted)

    return listen
