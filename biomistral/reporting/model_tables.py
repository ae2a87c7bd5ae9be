"""Tables of what accuracy does not show: calibrating, abstaining, preferred places, tests.

Pure functions of ``Results`` and ``Comparison`` records. A result that is not there is a dash.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from biomistral.records import LETTERS, Comparison
from biomistral.reporting.results import Results, Setting, average_of
from biomistral.reporting.score_tables import describe
from biomistral.reporting.tables import (
    Cell,
    Column,
    Row,
    Table,
    count_cell,
    metric_of,
    number_cell,
    p_cell,
    score_cell,
    slug,
    text_cell,
    with_marks,
)

LEVEL = 0.05  # of the corrected tests
_ABSTAINING = ("accuracy", "accuracy_at_80", "accuracy_at_50", "risk_coverage_area", "auroc")
_CALIBRATED = ("ece", "brier", "negative_log_likelihood")
_CORRECTED = "Holm, over all tests of this kind"
_MCNEMAR = (
    Column("p, McNemar"),
    Column("p, corrected", note=_CORRECTED),
    Column("Only first", note="questions that only the first answers right"),
    Column("Only second", note="questions that only the second answers right"),
    Column("Odds ratio", note="only first / only second"),
    Column("Cohen's g", note="0.05 small, 0.15 medium, 0.25 large"),
)


def calibrated_table(results: Results, group: str, setting: Setting) -> Table:
    """Calibration before and after temperature and Platt scaling, averaged over a group."""
    columns = [Column("Temperature", note=metric_of("temperature").note)]
    names = [("temperature", "temperature")]  # of the score, and of the metric it is printed like
    for metric in _CALIBRATED:
        shown = metric_of(metric)
        for suffix, words in (
            ("", "before"),
            ("_temperature", "temperature"),
            ("_platt", "Platt"),
        ):
            columns.append(Column(f"{shown.label}, {words}", note=shown.note))
            names.append((metric + suffix, metric))
    rows = []
    for model in _models(results, setting):
        found = [results.find(setting, model, average_of(group), name) for name, _ in names]
        cells = [
            score_cell(score, name=like) for (_, like), score in zip(names, found, strict=True)
        ]
        if any(found):
            rows.append(Row(model, tuple(cells), results.kinds[model]))
    return Table(
        id=slug("calibrated", group, *map(str, setting)),
        title=f"Before and after calibrating, {group} average: {describe(setting)}",
        head="Model",
        columns=tuple(columns),
        rows=tuple(rows if any(row.cells[0].value is not None for row in rows) else ()),
        note="Lower is better, but for the temperature. Each question is calibrated by what was "
        "fitted on other questions; no answer changes.",
    )


def abstaining_table(results: Results, group: str, setting: Setting) -> Table:
    """Accuracy when a model may leave out what it is unsure of, averaged over a group."""
    metrics = [metric_of(name) for name in _ABSTAINING]
    rows = []
    for model in _models(results, setting):
        found = [results.find(setting, model, average_of(group), name) for name in _ABSTAINING]
        if any(found):
            rows.append(Row(model, tuple(map(score_cell, found)), results.kinds[model]))
    return with_marks(
        Table(
            id=slug("abstaining", group, *map(str, setting)),
            title=f"Abstaining, {group} average: {describe(setting)}",
            head="Model",
            columns=tuple(Column(m.label, m.better, m.note) for m in metrics),
            rows=tuple(rows if any(row.cells[3].value is not None for row in rows) else ()),
            note=" ".join(f"{m.label.removesuffix(', %')}: {m.note}." for m in metrics[1:]),
        )
    )


def positions_table(results: Results, group: str, setting: Setting) -> Table:
    """How often each letter is chosen, and how often it is right, averaged over a group."""
    task = average_of(group)
    models = [m for m in _models(results, setting) if results.kinds[m] != "baseline"]
    letters = [
        letter
        for letter in LETTERS
        if any(results.find(setting, model, task, f"chosen_{letter}") for model in models)
    ]
    bias = metric_of("position_bias")

    def shares(model: str, side: str) -> list[Cell]:
        found = [results.find(setting, model, task, f"{side}_{letter}") for letter in letters]
        return [number_cell(None if score is None else 100 * score.value) for score in found]

    rows = [
        Row(
            model,
            (
                score_cell(results.find(setting, model, task, "position_bias")),
                *shares(model, "chosen"),
            ),
            results.kinds[model],
        )
        for model in models
    ]
    if letters:
        rows.append(Row("right answers", (Cell(), *shares(models[0], "right")), "baseline"))
    return Table(
        id=slug("positions", group, *map(str, setting)),
        title=f"Places chosen, {group} average: {describe(setting)}",
        head="Model",
        columns=(Column(bias.label, note=bias.note), *map(Column, letters)),
        rows=tuple(rows if letters else []),
        note="Share of the answers in % at each place as it was shown, and of the right answers. "
        f"Distance {bias.note}: half the sum of (chosen − right)² / (chosen + right).",
    )


def pairs_table(
    rows: Sequence[Comparison], title: str, id_: str, titles: Mapping[str, str]
) -> Table:
    """Every pair of models with the difference, its interval, the tests and the effect size."""
    many = len({(row.task, row.language, row.scoring, row.shots) for row in rows}) > 1
    tested = any(row.p_mcnemar is not None for row in rows)
    heads = [
        Column("Second", is_text=True),
        *([Column("Task", is_text=True)] if many else []),
        Column("Difference, points", note="first less second, in percentage points"),
        Column("95 % interval", note="paired bootstrap over questions and seeds", is_text=True),
        Column("p, bootstrap"),
        Column("p, corrected", note=_CORRECTED),
        *(_MCNEMAR if tested else ()),
        Column("Shown to be better", is_text=True),
    ]
    lines = []
    for row in rows:
        task = [text_cell(titles.get(row.task, row.task))] if many else []
        cells = [*_difference_cells(row), *(_mcnemar_cells(row) if tested else ())]
        lines.append(
            Row(row.first, (text_cell(row.second), *task, *cells, text_cell(better_of(row))))
        )
    note = f"Shown to be better: at the {100 * LEVEL:.0f} % level after Holm's correction, by "
    note += (
        "McNemar's test on a task and by the bootstrap on an average."
        if tested
        else ("the paired bootstrap.")
    )
    return Table(
        id=id_, title=title, head="First", columns=tuple(heads), rows=tuple(lines), note=note
    )


def matrix_table(rows: Sequence[Comparison], title: str, id_: str, models: Sequence[str]) -> Table:
    """Every model (rows) less every other (columns) in points; a star where it is not chance."""
    found: dict[tuple[str, str], Cell] = {}
    for row in rows:
        star = "*" if better_of(row) else ""
        for pair, sign in (((row.first, row.second), 1), ((row.second, row.first), -1)):
            cell = number_cell(sign * 100 * row.difference, signed=True)
            low, high = sorted(sign * 100 * bound for bound in (row.low, row.high))
            note = f"corrected p {p_cell(row.p_bootstrap_holm).text}"
            found[pair] = replace(cell, text=cell.text + star, low=low, high=high, note=note)
    shown = [name for name in models if any(name in pair for pair in found)]
    return Table(
        id=id_,
        title=title,
        head="Model",
        columns=tuple(Column(name) for name in shown),
        rows=tuple(
            Row(name, tuple(found.get((name, other), Cell()) for other in shown)) for name in shown
        ),
        note="Accuracy of the row less that of the column, in percentage points. * : shown not to be "
        f"chance at the {100 * LEVEL:.0f} % level (paired bootstrap, Holm's correction).",
    )


def better_of(row: Comparison) -> str:
    """Name the model that is shown to be better; empty if neither is."""
    p_value = row.p_bootstrap_holm if row.p_mcnemar_holm is None else row.p_mcnemar_holm
    if p_value >= LEVEL:
        return ""
    better = row.first_only > row.second_only if row.p_mcnemar is not None else row.difference > 0
    return row.first if better else row.second


def _difference_cells(row: Comparison) -> tuple[Cell, ...]:
    low, high = (number_cell(100 * bound, signed=True).text for bound in (row.low, row.high))
    difference = number_cell(100 * row.difference, signed=True)
    interval = text_cell(f"{low} to {high}")
    return difference, interval, p_cell(row.p_bootstrap), p_cell(row.p_bootstrap_holm)


def _mcnemar_cells(row: Comparison) -> tuple[Cell, ...]:
    is_test = row.p_mcnemar is not None
    return (
        p_cell(row.p_mcnemar),
        p_cell(row.p_mcnemar_holm),
        count_cell(row.first_only if is_test else None),
        count_cell(row.second_only if is_test else None),
        number_cell(row.odds_ratio, 2),
        number_cell(row.cohens_g, 2, signed=True),
    )


def in_setting(
    rows: Iterable[Comparison], results: Results, group: str, setting: Setting
) -> list[Comparison]:
    """The comparisons of a group in one setting: averages first, then tasks in their order."""
    place = {task.name: index for index, task in enumerate(results.tasks)}
    found = [r for r in rows if r.group == group and (r.language, r.scoring, r.shots) == setting]
    return sorted(found, key=lambda row: place.get(row.task, -1))


def _models(results: Results, setting: Setting) -> list[str]:
    measured = {key[1] for key in results.scores if key[0] == setting}
    return [name for name in results.models if name in measured]
