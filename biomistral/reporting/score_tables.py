"""The tables of results: accuracy by task, group and language, calibration, and a model's own.

Pure functions of ``Results``. A result that is not there is a dash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from biomistral.languages import LANGUAGES
from biomistral.records import Task
from biomistral.reporting.results import Results, Setting, average_of
from biomistral.reporting.tables import (
    METRICS,
    Cell,
    Column,
    Metric,
    Row,
    RowKind,
    Table,
    metric_of,
    number_cell,
    score_cell,
    slug,
    text_cell,
    with_marks,
)

ACCURACY = "accuracy"
DEVIATION = "accuracy_deviation"
MICRO = "accuracy_micro"
UNCONSTRAINED = "accuracy_top"
# Metrics that have tables of their own; those after calibrating end in one of _CALIBRATED.
_ELSEWHERE = {
    *(ACCURACY, DEVIATION, MICRO, UNCONSTRAINED, "accuracy_at_50", "accuracy_at_80"),
    *("risk_coverage_area", "auroc", "position_bias", "temperature"),
}
_CALIBRATED = ("_temperature", "_platt")
_LETTERS = ("chosen_", "right_")


def language_name(code: str) -> str:
    """English name of a language; the code itself for one outside the benchmark."""
    return LANGUAGES[code].name if code in LANGUAGES else code


def describe(setting: Setting) -> str:
    """Say a setting in words: ``English, letter scoring, 3-shot``."""
    return f"{language_name(setting.language)}, {setting.scoring} scoring, {setting.shots}-shot"


def accuracy_table(results: Results, group: str, setting: Setting) -> Table:
    """Accuracy of every model (rows) on every task of a group (columns), and their averages."""
    tasks = results.tasks_of(group, setting)
    average = average_of(group)
    columns: Sequence[Task] = (*tasks, average) if len(tasks) > 1 else tasks
    heads = [Column(task.title, "higher", task.note) for task in columns]
    models = _models(results, setting)
    micro = {m: results.find(setting, m, average, MICRO) for m, _ in models}
    has_micro = len(tasks) > 1 and any(micro.values())
    rows = []
    for model, kind in models:
        cells = [_accuracy(results, setting, model, task) for task in columns]
        rows.append(Row(model, (*cells, *([score_cell(micro[model])] if has_micro else [])), kind))
    if has_micro:
        heads.append(Column("Micro average", "higher", metric_of(MICRO).note))
    note = "Accuracy in %, mean over seeds ± standard deviation over seeds (population)."
    if any(cell.value is None for row in rows for cell in row.cells):
        note += " A model that lacks a task has no average."
    return with_marks(
        Table(
            id=slug("accuracy", group, *_parts(setting)),
            title=f"{group.capitalize()} tasks: {describe(setting)}",
            head="Model",
            columns=tuple(heads),
            rows=tuple(rows),
            note=note,
        )
    )


def top_token_table(results: Results, group: str, setting: Setting) -> Table:
    """Share of questions where the most probable token of all is the right letter, by task."""
    tasks = results.tasks_of(group, setting)
    columns: Sequence[Task] = (*tasks, average_of(group)) if len(tasks) > 1 else tasks
    rows = []
    for model, kind in _models(results, setting):
        found = [results.find(setting, model, task, UNCONSTRAINED) for task in columns]
        if any(found):
            rows.append(Row(model, tuple(map(score_cell, found)), kind))
    return with_marks(
        Table(
            id=slug("top-token", group, *_parts(setting)),
            title=f"Most probable token, {group} tasks: {describe(setting)}",
            head="Model",
            columns=tuple(Column(task.title, "higher", task.note) for task in columns),
            rows=tuple(rows),
            note="Share of questions in % where the most probable token of the whole vocabulary is "
            "the right letter: any other token is wrong. The paper's script for fine-tuned models "
            "counts so.",
        )
    )


def groups_table(
    results: Results,
    setting: Setting,
    parents: Mapping[str, str],
    makings: Mapping[str, Sequence[str]] | None = None,
) -> Table:
    """Averages of the groups side by side, and each model's change against its parent.

    ``parents`` names, for a model made from another one here, that other one; ``makings`` all that
    it was made from, where they are several.
    """
    averages = [average_of(group) for group in results.groups]
    rows = []
    for model, kind in _models(results, setting):
        parent = parents.get(model, "")
        own = [_accuracy(results, setting, model, task) for task in averages]
        before = [_accuracy(results, setting, parent, task) for task in averages]
        changes = [_change(new, old) for new, old in zip(own, before, strict=True)]
        sources = ", ".join((makings or {}).get(model) or [parent])
        rows.append(Row(model, (*own, text_cell(sources), *changes), kind))
    return with_marks(
        Table(
            id=slug("groups", *_parts(setting)),
            title=f"What was gained and what was forgotten: {describe(setting)}",
            head="Model",
            columns=(
                *(Column(f"{group.capitalize()} average", "higher") for group in results.groups),
                Column("Made from", is_text=True),
                *(Column(f"Change, {group}") for group in results.groups),
            ),
            rows=tuple(rows),
            note="Averages in %; changes in points against the model it was made from, "
            "of a merge against its base.",
        )
    )


def languages_table(results: Results, group: str, scoring: str, shots: int) -> Table:
    """Average of a group for every model (rows) in every language (columns), and their mean."""
    settings = [s for s in results.settings if (s.scoring, s.shots) == (scoring, shots)]
    measured = {name for s in settings for name, _ in _models(results, s)}
    rows = []
    for model in (name for name in results.models if name in measured):
        cells = [_accuracy(results, s, model, average_of(group)) for s in settings]
        rows.append(Row(model, (*cells, _mean(cells)), results.kinds[model]))
    names = [language_name(s.language) for s in settings]
    return with_marks(
        Table(
            id=slug("languages", group, scoring, f"{shots}shot"),
            title=f"{group.capitalize()} average by language: {scoring} scoring, {shots}-shot",
            head="Model",
            columns=tuple(Column(name, "higher") for name in (*names, "Mean")),
            rows=tuple(rows),
            note=f"Accuracy in %. {_same_tasks(results, group, settings)}",
        )
    )


# Without it, a reader takes the scoring's own doubt for the model's.
_CLOZE_NOTE = (
    " Cloze probabilities come from log-probabilities per byte, which flattens them: they are less "
    "confident than the model, and their calibration says more about the scoring than about it."
)


def calibration_table(results: Results, group: str, setting: Setting) -> Table:
    """Every metric but accuracy that was measured, averaged over the tasks of a group."""
    metrics = _other_metrics(results, setting)
    task = average_of(group)
    rows = [
        Row(
            model,
            tuple(score_cell(results.find(setting, model, task, m)) for m in metrics),
            kind,
        )
        for model, kind in _models(results, setting)
    ]
    is_cloze = setting.scoring == "cloze"
    shown = [_calibration_metric(name, setting.scoring) for name in metrics]
    table = Table(
        id=slug("calibration", group, *_parts(setting)),
        title=f"Calibration, {group} average: {describe(setting)}",
        head="Model",
        columns=tuple(Column(m.label, m.better, m.note) for m in shown),
        rows=tuple(row for row in rows if any(cell.value is not None for cell in row.cells)),
        note=" ".join(f"{m.label.removesuffix(', %')}: {m.note}." for m in shown if m.note)
        + " Lower is better."
        + (_CLOZE_NOTE if is_cloze else ""),
    )
    return table if is_cloze else with_marks(table)


def _calibration_metric(name: str, scoring: str) -> Metric:
    """Cloze probabilities are renormalised in every metric; the note on letters is not theirs."""
    metric = metric_of(name)
    if scoring == "cloze" and name == "ece_published":
        return replace(metric, note="5 bins")
    return metric


def model_table(results: Results, model: str, scoring: str, shots: int) -> Table:
    """One model's accuracy on every task (rows) in every language (columns), for its card."""
    settings = [s for s in results.settings if (s.scoring, s.shots) == (scoring, shots)]
    rows = []
    for group in results.groups:
        average = average_of(group)
        tasks = results.tasks_of(group)
        for task in (*tasks, average) if len(tasks) > 1 else tasks:
            label = f"{group.capitalize()} average" if task == average else task.title
            cells = tuple(_accuracy(results, s, model, task) for s in settings)
            if any(cell.value is not None for cell in cells):
                rows.append(Row(label, cells))
    return Table(
        id=slug("model", scoring, f"{shots}shot"),
        title=f"{scoring.capitalize()} scoring, {shots}-shot",
        head="Task",
        columns=tuple(Column(language_name(s.language)) for s in settings),
        rows=tuple(rows),
        note="Accuracy in %, mean over seeds ± standard deviation over seeds (population).",
    )


def _parts(setting: Setting) -> tuple[str, str, str]:
    """Parts of the id of a table in this setting."""
    return setting.language, setting.scoring, f"{setting.shots}shot"


def _models(results: Results, setting: Setting) -> list[tuple[str, RowKind]]:
    """Models with any score in a setting, in order, each with its kind."""
    measured = {key[1] for key in results.scores if key[0] == setting}
    return [(name, results.kinds[name]) for name in results.models if name in measured]


def _accuracy(results: Results, setting: Setting, model: str, task: Task) -> Cell:
    return score_cell(
        results.find(setting, model, task, ACCURACY), results.find(setting, model, task, DEVIATION)
    )


def _change(new: Cell, old: Cell) -> Cell:
    if new.value is None or old.value is None:
        return Cell()
    return number_cell(new.value - old.value, signed=True)


def _mean(cells: Sequence[Cell]) -> Cell:
    """Unweighted mean; a dash if any is absent, for it would be a mean of something else."""
    values = [cell.value for cell in cells if cell.value is not None]
    return number_cell(fmean(values)) if values and len(values) == len(cells) else Cell()


def _other_metrics(results: Results, setting: Setting) -> list[str]:
    names = {
        key[4]
        for key in results.scores
        if key[0] == setting
        and not key[4].startswith(_LETTERS)
        and not key[4].endswith(_CALIBRATED)
    } - _ELSEWHERE
    known = [name for name in METRICS if name in names]
    return known + sorted(names - set(known))


def _same_tasks(results: Results, group: str, settings: Sequence[Setting]) -> str:
    """Say whether the averages of the languages are over the same tasks."""
    tasks = {s.language: [t.title for t in results.tasks_of(group, s)] for s in settings}
    if len({tuple(titles) for titles in tasks.values()}) <= 1:
        return "All languages are averaged over the same tasks."
    each = "; ".join(f"{language_name(code)}: {', '.join(t)}" for code, t in tasks.items())
    return f"Not comparable across columns: the languages have different tasks ({each})."
