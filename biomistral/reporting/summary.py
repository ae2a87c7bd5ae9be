"""The findings of a run in sentences, worked out from the numbers and claiming no more than them.

Two intervals that overlap are said to overlap; nothing is called better on such a difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from biomistral.records import Score
from biomistral.reporting.results import (
    RANDOM_CHOICE,
    Results,
    Setting,
    average_of,
)
from biomistral.reporting.score_tables import ACCURACY, describe
from biomistral.reporting.tables import Cell, score_cell


def findings(
    results: Results, parents: Mapping[str, str], trained: Sequence[str]
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
        _best(averages, group, setting),
        *_against_chance(results, averages, setting, group),
        *(
            _change(results, setting, model, parents[model])
            for model in trained
            if model in averages and parents.get(model) in averages
        ),
    )


def _averages(results: Results, setting: Setting, group: str) -> dict[str, Score]:
    """Average accuracy of every model and ensemble; a single task is its own average."""
    tasks = results.tasks_of(group, setting)
    task = average_of(group) if len(tasks) != 1 else tasks[0]
    found = {m: results.find(setting, m, task, ACCURACY) for m in results.models}
    return {m: s for m, s in found.items() if s is not None and results.kinds[m] != "baseline"}


def _best(averages: Mapping[str, Score], group: str, setting: Setting) -> str:
    best = max(averages, key=lambda model: averages[model].value)
    text = (
        f"{describe(setting)}: {best} has the highest {group} average, {_percent(averages[best])}."
    )
    rivals = [m for m in averages if m != best and _overlap(averages[m], averages[best])]
    if len(averages) == 1:
        return text
    if any(score.low is None for score in averages.values()):
        return f"{text} There are no intervals, so how sure that is cannot be said."
    if not rivals:
        return f"{text} Its interval overlaps with that of no other model."
    return (
        f"{text} Its interval overlaps with that of {_listed(rivals)}: this run does not show that "
        "it is better than these."
    )


def _against_chance(
    results: Results, averages: Mapping[str, Score], setting: Setting, group: str
) -> list[str]:
    chance = results.find(setting, RANDOM_CHOICE, average_of(group), ACCURACY)
    if chance is None:
        return []
    weak = [
        model
        for model, score in averages.items()
        if (score.value if score.low is None else score.low) <= chance.value
    ]
    line = f"random choice ({chance.value:.1%})".replace("%", " %")
    if not weak:
        return [f"Every model is above {line} on the {group} average."]
    if len(weak) == len(averages):
        return [f"No model is shown to be above {line} on the {group} average."]
    return [f"Not shown to be above {line} on the {group} average: {_listed(weak)}."]


def _change(results: Results, setting: Setting, model: str, parent: str) -> str:
    """Say how a trained model moved against its parent, group by group."""
    parts = []
    for group in results.groups:
        averages = _averages(results, setting, group)
        if model not in averages or parent not in averages:
            continue
        new, old = averages[model], averages[parent]
        points = f"{(new.value - old.value) * 100:+.1f}".replace("-", "\N{MINUS SIGN}")
        if new.low is None or old.low is None:
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


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
