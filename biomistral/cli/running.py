"""What ``biomistral run`` shows: the plan, progress, and a table of what was done.

Knows how things look on a terminal, nothing about what steps do.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from biomistral.advisory import ADVISORY
from biomistral.cli import launching, terminal
from biomistral.disk import plain_os_errors
from biomistral.pipeline import (
    Outcome,
    Step,
    Verdict,
    expected_costs,
    judge,
    plan,
    run_steps,
    select,
)
from biomistral.recipe import Recipe, load_recipe
from biomistral.recipe.explain import explain


@dataclass(frozen=True)
class Where:
    """The cluster to run on, and how many processes of it train a model together."""

    address: str
    cpus_per_task: int
    processes: int = 1


_WORDS = {"done": "is there", "new": "new", "changed": "changed"}


def run(
    recipe_file: Path,
    out: Path,
    *,
    only: Sequence[str],
    changes: Sequence[str],
    dry_run: bool,
    nproc: int = 1,
    where: Where | None = None,
) -> None:
    """Plan a recipe and run it, or only show the plan; train in ``nproc`` processes."""
    # Brackets in paths are no markup. Of several processes the first one speaks.
    console = Console(highlight=False, markup=False, quiet=not launching.is_first())
    recipe = load_recipe(recipe_file, changes=changes)
    root = out / recipe.name
    steps = select(plan(recipe, root), only)
    if dry_run:
        _show_plan(console, steps, {step.key: judge(step, root) for step in steps})
        launching.show_needs(console, recipe, steps, nproc)
        if not any(step.missing for step in steps):
            show_costs(console, recipe, root)
        return
    again = None
    if nproc > 1 and where is None:
        again = launching.Again(recipe_file, out, tuple(changes), nproc)
    outcomes = execute(console, recipe, root, steps, again, where)
    if launching.num_processes() > 1:
        return  # whoever started the processes says the rest
    console.print(_outcome_table(outcomes))
    if any(outcome.step.kind == "report" for outcome in outcomes):
        console.print(f"Report: {root / 'report/report/index.html'}", soft_wrap=True)
    console.print(ADVISORY, style="dim")


def execute(
    console: Console,
    recipe: Recipe,
    root: Path,
    steps: Sequence[Step],
    again: launching.Again | None = None,
    where: Where | None = None,
) -> list[Outcome]:
    """Run steps with a bar, and write the recipe beside what they make.

    With ``again``, models are trained by this command in several processes.
    """
    verdicts = {step.key: judge(step, root) for step in steps}
    launching.check_only_training(step for step in steps if verdicts[step.key].state != "done")
    terminal.interrupt_on_termination()
    waiting = sum(verdict.state != "done" for verdict in verdicts.values())
    console.print(f"{recipe.name}: {waiting} of {len(steps)} steps to do, in {root}")
    for key, verdict in verdicts.items():
        if verdict.state == "changed":
            console.print(f"  {key} changed: {verdict.reason}", soft_wrap=True, markup=False)
    outcomes: list[Outcome] = []
    with terminal.bar(console) as bar:
        for outcome in _outcomes(bar, recipe, root, steps, again, where):
            _forget(bar)
            outcomes.append(outcome)
            if launching.is_first():
                _keep_recipe(recipe, root / "recipe.yaml")
            if outcome.verdict.state != "done":
                console.print(_line(outcome))
    return outcomes


def _keep_recipe(recipe: Recipe, place: Path) -> None:
    """Write it beside what it makes; a run that is finished may be read only."""
    text = explain(recipe)
    with plain_os_errors(place):
        if not place.is_file() or place.read_text(encoding="utf-8") != text:
            place.write_text(text, encoding="utf-8")


def _outcomes(
    bar: Progress,
    recipe: Recipe,
    root: Path,
    steps: Sequence[Step],
    again: launching.Again | None,
    where: Where | None,
) -> Iterator[Outcome]:
    """Run steps here, or on a cluster."""
    if where is None:
        yield from run_steps(
            steps,
            root,
            progress_of=lambda step: terminal.listener(bar, step.key),
            launch=functools.partial(launching.launch, bar.console, bar, again) if again else None,
        )
        return
    from biomistral.pipeline.cluster import Cluster
    from biomistral.pipeline.cluster_steps import run_on

    cluster = Cluster(where.address, cpus_per_task=where.cpus_per_task)
    terminal.interrupt_on_termination()  # which Ray has taken for itself
    try:
        show = bar.console.print
        show(f"on {cluster.describe()}")
        yield from run_on(
            cluster,
            recipe,
            steps,
            root,
            processes=where.processes,
            tell=lambda key: show(f"  {key} started"),
        )
    finally:
        cluster.close()


def show_costs(console: Console, recipe: Recipe, root: Path) -> int:
    """Print what is left to ask of served models; return the number of requests."""
    costs = expected_costs(recipe, root)
    for name, cost in costs.items():
        console.print(f"{name}: {cost.words}", soft_wrap=True)
    return sum(cost.num_requests for cost in costs.values())


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


def _forget(bar: Progress) -> None:
    for task in bar.task_ids:
        bar.remove_task(task)
