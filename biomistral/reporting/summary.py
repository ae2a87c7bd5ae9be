"""The findings of a run in sentences, worked out from the numbers and claiming no more than them.

What is called better was shown to be by the tests between models, as their table has it. Where these
are missing (models of different runs), intervals that overlap are said to overlap, and nothing is called
better on such a difference. Equal numbers in print have no winner.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from biomistral.records import Comparison, Score, Task
from biomistral.reporting.model_tables import better_of
from biomistral.reporting.results import (
    MAJORITY_CHOICE,
    RANDOM_CHOICE,
    Results,
    Setting,
    average_of,
)
from biomistral.reporting.score_tables import ACCURACY, describe
from biomistral.reporting.tables import Cell, score_cell

Tests = Mapping[frozenset[str], Comparison]  # by the two models


def findings(
    results: Results,
    parents: Mapping[str, str],
    trained: Sequence[str],
    comparisons: Sequence[Comparison] = (),
) -> tuple[str, ...]:
    """Return sentences on the main group in the main setting, the most important first.

    ``trained`` are the models that were trained in this run; each is compared with its parent.
    """
    if not results.main_settings:
        return ("Nothing was measured.",)
    setting, group = results.main_settings[0], results.main_group
    averages = _averages(results, setting, group)
    if not averages:
        return (f"No average accuracy of {group} tasks was measured ({describe(setting)}).",)
    return (
        _best(averages, group, setting, _tests(results, comparisons, setting, group)),
        *_against_baselines(results, averages, setting, group),
        *(
            _change(results, setting, model, parents[model], comparisons)
            for model in trained
            if model in averages and parents.get(model) in averages
        ),
    )


def _averages(results: Results, setting: Setting, group: str) -> dict[str, Score]:
    """Average accuracy of every model and ensemble; a single task is its own average."""
    task = _average_task(results, setting, group)
    found = {m: results.find(setting, m, task, ACCURACY) for m in results.models}
    return {m: s for m, s in found.items() if s is not None and results.kinds[m] != "baseline"}


def _average_task(results: Results, setting: Setting, group: str) -> Task:
    tasks = results.tasks_of(group, setting)
    return average_of(group) if len(tasks) != 1 else tasks[0]


def _tests(
    results: Results, comparisons: Sequence[Comparison], setting: Setting, group: str
) -> Tests:
    """The tests on the average of a group in one setting."""
    task = _average_task(results, setting, group)
    return {
        frozenset((row.first, row.second)): row
        for row in comparisons
        if (row.language, row.scoring, row.shots) == setting
        and (row.group, row.task) == (group, task.name)
    }


def _best(averages: Mapping[str, Score], group: str, setting: Setting, tests: Tests) -> str:
    """Name the highest average, or all that print it: what looks equal is called equal."""
    best = max(averages.values(), key=lambda score: score.value)
    shown = score_cell(best).text
    first = [model for model, score in averages.items() if score_cell(score).text == shown]
    if len(first) > 1:
        text = f"{_listed(first)} share the highest {group} average, {shown} %."
    else:
        text = f"{first[0]} has the highest {group} average, {_percent(best)}."
    text = f"{describe(setting)}: {text}"
    others = [model for model in averages if model not in first]
    if not others:
        return text
    pairs = {(f, m): tests.get(frozenset((f, m))) for m in others for f in first}
    if all(pairs.values()):
        unsure = {m for (f, m), row in pairs.items() if row and better_of(row) != f}
        return f"{text} {_shown('it is' if len(first) == 1 else 'they are', [m for m in others if m in unsure])}"
    if any(score.low is None for score in averages.values()):
        return f"{text} There are no intervals, so how sure that is cannot be said."
    rivals = [m for m in others if any(_overlap(averages[m], averages[f]) for f in first)]
    whose = "Its interval overlaps" if len(first) == 1 else "Their intervals overlap"
    if not rivals:
        return f"{text} {whose} with that of no other model."
    return (
        f"{text} {whose} with {'that' if len(rivals) == 1 else 'those'} of {_listed(rivals)}: this run does not show that "
        f"{'it is' if len(first) == 1 else 'they are'} better than these."
    )


def _shown(subject: str, rivals: Sequence[str]) -> str:
    """Say what tests between models say of the best; ``rivals`` are those that it may not beat."""
    if not rivals:
        return f"{subject.capitalize()} shown to be better than every other model."
    return f"That {subject} better than {_listed(rivals)} is not shown (paired tests, corrected)."


def _against_baselines(
    results: Results, averages: Mapping[str, Score], setting: Setting, group: str
) -> list[str]:
    """Say how the models stand to random choice, and which are below the majority choice."""
    lines = []
    task = _average_task(results, setting, group)
    if chance := results.find(setting, RANDOM_CHOICE, task, ACCURACY):
        lines += _against_chance(averages, chance.value, group)
    if majority := results.find(setting, MAJORITY_CHOICE, task, ACCURACY):
        below = [model for model, score in averages.items() if score.value < majority.value]
        if below:
            lines.append(
                f"Lower on the {group} average than always giving the most frequent answer "
                f"({_value(majority.value)}, majority choice): {_listed_of(below, averages)}."
            )
    return lines


def _against_chance(averages: Mapping[str, Score], chance: float, group: str) -> list[str]:
    line = f"random choice ({_value(chance)}) on the {group} average"
    below = [m for m, s in averages.items() if (s.value if s.high is None else s.high) < chance]
    weak = [
        model
        for model, score in averages.items()
        if model not in below and (score.value if score.low is None else score.low) <= chance
    ]
    if len(weak) == len(averages):
        return [f"No model is shown to be above {line}."]
    if not weak and not below:
        return [f"Every model is above {line}."]
    lines = [f"Below {line}: {_listed_of(below, averages)}."] if below else []
    if weak:
        lines.append(f"Not shown to be above {line}: {_listed(weak)}.")
    return lines


def _change(
    results: Results,
    setting: Setting,
    model: str,
    parent: str,
    comparisons: Sequence[Comparison],
) -> str:
    """Say how a trained model moved against its parent, group by group."""
    parts = []
    for group in results.groups:
        averages = _averages(results, setting, group)
        if model not in averages or parent not in averages:
            continue
        new, old = averages[model], averages[parent]
        points = f"{(new.value - old.value) * 100:+.1f}".replace("-", "\N{MINUS SIGN}")
        test = _tests(results, comparisons, setting, group).get(frozenset((model, parent)))
        if test:
            certainty = "more than chance" if better_of(test) else "may be chance"
        elif new.low is None or old.low is None:
            certainty = "no intervals"
        else:
            certainty = f"intervals {'overlap' if _overlap(new, old) else 'do not overlap'}"
        parts.append(f"{points} points on the {group} average ({certainty})")
    return f"{model} against {parent}, which it was trained from: {'; '.join(parts)}."


def _overlap(a: Score, b: Score) -> bool:
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return False
    return a.low <= b.high and b.low <= a.high


def _percent(score: Score) -> str:
    cell: Cell = score_cell(score)
    if cell.low is None:
        return f"{cell.text} %"
    return f"{cell.text} % (95 % interval {cell.interval})"


def _value(fraction: float) -> str:
    return f"{fraction:.1%}".replace("%", " %")


def _listed_of(names: Sequence[str], all_names: Collection[str]) -> str:
    every = len(names) == len(all_names) > 1
    return f"every model ({_listed(names)})" if every else _listed(names)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
