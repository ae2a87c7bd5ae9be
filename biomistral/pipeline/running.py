"""Run the steps of a plan: skip what is there, make what is not, say what was done.

Knows the order and the places, nothing about what any step does.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from biomistral import artifacts
from biomistral.errors import InputError, MissingDependencyError, ModelError, did_you_mean
from biomistral.pipeline.steps import Step, Verdict, judge
from biomistral.progress import Progress, ignore

TRAINED = ("pretrain", "sft", "dpo")  # code of steps that can run in several processes


@dataclass(frozen=True)
class Outcome:
    """What became of a step. ``seconds`` is of this run, 0 if it was there already."""

    step: Step
    verdict: Verdict
    seconds: float
    size_bytes: int


def select(steps: Sequence[Step], only: Sequence[str]) -> list[Step]:
    """Keep the steps named by key, name, kind or section, and all they need.

    Raises ``InputError`` for a name that no step has.
    """
    if not only:
        return list(steps)
    by_key = {step.key: step for step in steps}
    wanted: set[str] = set()
    for name in only:
        matches = [s.key for s in steps if name in _names(s)]
        if not matches:
            names = [name for s in steps for name in _names(s)]
            listed = ", ".join(by_key)
            raise InputError(
                f"--only {name}: no step is called so{did_you_mean(name, names)} (there is: {listed})"
            )
        wanted.update(matches)
    frontier = list(wanted)
    while frontier:
        new = [key for key in by_key[frontier.pop()].needs if key not in wanted]
        wanted.update(new)
        frontier += new
    return [step for step in steps if step.key in wanted]


def _names(step: Step) -> tuple[str, ...]:
    """What a step may be called by; ``corpus[0]`` and ``models.blank`` by their section, too."""
    bare = re.split(r"[.\[]", step.section)[0]
    return (step.name, step.key, step.kind, step.section, bare)


def run_steps(
    steps: Sequence[Step],
    root: Path,
    *,
    progress_of: Callable[[Step], Progress] = lambda _: ignore,
    launch: Callable[[Step], None] | None = None,
) -> Iterator[Outcome]:
    """Run steps in order, yielding each one's outcome as it is known.

    ``launch``, if given, makes the models that are trained, in place of this process.

    Raises ``InputError`` with everything that is missing before the first step starts.
    """
    verdicts = {step.key: judge(step, root) for step in steps}
    refuse_missing(steps, verdicts)
    for step in steps:
        out, verdict = root / step.key, verdicts[step.key]
        started = time.perf_counter()
        if verdict.state != "done" and launch is not None and step.code in TRAINED:
            launch(step)
        elif verdict.state != "done":
            make(step, out, progress_of(step))
        seconds = 0.0 if verdict.state == "done" else time.perf_counter() - started
        yield Outcome(step, verdict, seconds, artifacts.size_bytes(out))


def refuse_missing(steps: Sequence[Step], verdicts: Mapping[str, Verdict]) -> None:
    """Raise ``InputError`` with all that steps to be made need from the user and do not find."""
    missing = list(
        dict.fromkeys(m for s in steps if verdicts[s.key].state != "done" for m in s.missing)
    )
    if missing:
        raise InputError(missing[0] if len(missing) == 1 else "\n  - ".join(["missing:", *missing]))


def make(step: Step, out: Path, progress: Progress) -> float:
    """Make one artefact and return the seconds it took; an error says which."""
    started = time.perf_counter()
    try:
        step.make(out, step.origin, progress)
    except (InputError, ModelError, MissingDependencyError) as error:
        raise type(error)(f"{step.key}: {error}") from error
    return time.perf_counter() - started
