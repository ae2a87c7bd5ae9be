"""What ``biomistral run`` shows: the plan, progress, and a table of what was done.

Knows how things look on a terminal, nothing about what steps do.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from biomistral import progress as listening
from biomistral.advisory import ADVISORY
from biomistral.pipeline import Outcome, Step, Verdict, judge, plan, run_steps, select
from biomistral.recipe import load_recipe
from biomistral.recipe.explain import explain

_WORDS = {"done": "is there", "new": "new", "changed": "changed"}


def run(
    recipe_file: Path, out: Path, *, only: Sequence[str], changes: Sequence[str], dry_run: bool
) -> None:
    """Plan a recipe and run it, or only show the plan."""
    console = Console(highlight=False, markup=False)  # brackets in paths are no markup
    recipe = load_recipe(recipe_file, changes=changes)
    root = out / recipe.name
    steps = select(plan(recipe, root), only)
    verdicts = {step.key: judge(step, root) for step in steps}
    if dry_run:
        _show_plan(console, steps, verdicts)
        return
    signal.signal(signal.SIGTERM, _interrupt)
    waiting = sum(verdict.state != "done" for verdict in verdicts.values())
    console.print(f"{recipe.name}: {waiting} of {len(steps)} steps to do, in {root}")
    for key, verdict in verdicts.items():
        if verdict.state == "changed":
            console.print(f"  {key} changed: {verdict.reason}", soft_wrap=True, markup=False)
    outcomes: list[Outcome] = []
    with _bar(console) as bar:
        for outcome in run_steps(steps, root, progress_of=lambda step: _listener(bar, step)):
            _forget(bar)
            outcomes.append(outcome)
            (root / "recipe.yaml").write_text(explain(recipe), encoding="utf-8")
            if outcome.verdict.state != "done":
                console.print(_line(outcome))
    console.print(_outcome_table(outcomes))
    if any(outcome.step.kind == "report" for outcome in outcomes):
        console.print(f"Report: {root / 'report/report/index.html'}", soft_wrap=True)
    console.print(ADVISORY, style="dim")


def _show_plan(console: Console, steps: Sequence[Step], verdicts: dict[str, Verdict]) -> None:
    table = Table(title="What will run, and why", title_justify="left")
    for heading in ("step", "state", "why"):
        table.add_column(heading, overflow="fold")
    for step in steps:
        verdict = verdicts[step.key]
        dim = "dim" if verdict.state == "done" else ""
        table.add_row(step.key, _WORDS[verdict.state], verdict.reason, style=dim)
    console.print(table)
    waiting = [step for step in steps if verdicts[step.key].state != "done"]
    missing = dict.fromkeys(problem for step in waiting for problem in step.missing)
    for problem in missing:
        console.print(f"missing: {problem}", soft_wrap=True)


def _outcome_table(outcomes: Iterable[Outcome]) -> Table:
    table = Table(title="What was done", title_justify="left")
    table.add_column("step", overflow="fold")
    table.add_column("state")
    table.add_column("time", justify="right")
    table.add_column("size", justify="right")
    seconds = size = 0.0
    for outcome in outcomes:
        state = "skipped" if outcome.verdict.state == "done" else "made"
        shown = "" if state == "skipped" else f"{outcome.seconds:.1f} s"
        table.add_row(outcome.step.key, state, shown, _megabytes(outcome.size_bytes))
        seconds, size = seconds + outcome.seconds, size + outcome.size_bytes
    table.add_section()
    table.add_row("total", "", f"{seconds:.1f} s", _megabytes(size))
    return table


def _line(outcome: Outcome) -> str:
    return f"  {outcome.step.key:<40} {outcome.seconds:6.1f} s"


def _megabytes(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:,.2f} MB"


def _bar(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[text]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )


def _listener(bar: Progress, step: Step) -> listening.Progress:
    task = bar.add_task(step.key, total=None, text="")

    def listen(done: float, total: float | None, text: str) -> None:
        counted = f"{done:g} of {total:g} {text}" if total is not None else text
        bar.update(task, completed=done, total=total, text=counted)

    return listen


def _forget(bar: Progress) -> None:
    for task in bar.task_ids:
        bar.remove_task(task)


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
