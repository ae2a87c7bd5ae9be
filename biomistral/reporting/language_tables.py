"""The section on languages: accuracy and calibration in each, and what models lose against English.

Differences to English are taken question by question: the same questions in both languages.
Pure: from records to tables and figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from biomistral.records import LanguageGap, Score
from biomistral.reporting.charts import Chart
from biomistral.reporting.model_figures import gap_chart
from biomistral.reporting.model_sections import Section
from biomistral.reporting.results import AVERAGE, Results, average_of
from biomistral.reporting.run_tables import Artefact
from biomistral.reporting.score_tables import describe, language_name, languages_table
from biomistral.reporting.tables import (
    Cell,
    Column,
    Row,
    Table,
    number_cell,
    p_cell,
    score_cell,
    slug,
    with_marks,
)

_SURE = 0.05
_ECE = "ece"


def languages_section(
    results: Results, gaps: Sequence[LanguageGap], artefacts: Sequence[Artefact]
) -> Section:
    """All on languages; empty with one language alone. ``artefacts``: predictions among others."""
    if len(results.languages) < 2:
        return Section("languages", "")
    group = results.main_group
    tables: list[Table] = []
    folded: list[Table] = []
    charts: list[Chart] = []
    for scoring, shots in dict.fromkeys((s.scoring, s.shots) for s in results.settings):
        against_english = gap_tables(results, gaps, scoring, shots)
        tables += [languages_table(results, group, scoring, shots), *against_english[:1]]
        tables.append(calibration_by_language(results, group, scoring, shots))
        folded += against_english[1:]
        folded += calibration_by_task(results, group, scoring, shots)
        own = [g for g in _own(results, gaps, scoring, shots) if g.task == AVERAGE]
        if own:
            caption = f"{group.capitalize()} average against English ({scoring}, {shots}-shot)"
            id_ = slug("against-english", scoring, f"{shots}shot")
            charts.append(gap_chart(id_, caption, _in_order(results, own)))
    text = _prompts_in_words(artefacts)
    return Section("languages", "Languages", text, tables, charts, folded)


def calibration_by_language(results: Results, group: str, scoring: str, shots: int) -> Table:
    """Calibration error, averaged over a group, of every model (rows) in every language (columns)."""
    settings = [s for s in results.settings if (s.scoring, s.shots) == (scoring, shots)]
    found = {
        model: [results.find(s, model, average_of(group), _ECE) for s in settings]
        for model in results.models
    }
    names = [language_name(s.language) for s in settings]
    return with_marks(
        Table(
            id=slug("calibration-languages", group, scoring, f"{shots}shot"),
            title=f"Calibration by language, {group} average: {scoring} scoring, {shots}-shot",
            head="Model",
            columns=tuple(Column(name, "lower") for name in names),
            rows=_measured_rows(results, found),
            note="Expected calibration error in %, 15 equal bins; lower is better.",
        )
    )


def calibration_by_task(results: Results, group: str, scoring: str, shots: int) -> list[Table]:
    """One table for each language: calibration error of every model (rows) on every task."""
    tables = []
    for setting in results.settings:
        tasks = results.tasks_of(group, setting)
        if (setting.scoring, setting.shots) != (scoring, shots) or len(tasks) < 2:
            continue
        columns = (*tasks, average_of(group))
        found = {
            m: [results.find(setting, m, task, _ECE) for task in columns] for m in results.models
        }
        table = Table(
            id=slug("calibration-tasks", group, *map(str, setting)),
            title=f"Calibration by task: {describe(setting)}",
            head="Model",
            columns=tuple(Column(task.title, "lower") for task in columns),
            rows=_measured_rows(results, found),
            note="Expected calibration error in %, 15 equal bins; lower is better.",
        )
        tables.append(with_marks(table))
    return tables


def _measured_rows(
    results: Results, found: Mapping[str, Sequence[Score | None]]
) -> tuple[Row, ...]:
    return tuple(
        Row(model, tuple(map(score_cell, scores)), results.kinds[model])
        for model, scores in found.items()
        if any(scores)
    )


def _prompts_in_words(artefacts: Sequence[Artefact]) -> str:
    """Say in which language worked examples and the words around a question were."""
    settings = [
        (a.manifest or {}).get("settings") or {} for a in artefacts if a.role == "predictions"
    ]
    found = {
        (s["example_language"], s.get("prompt_language", "english"))
        for s in settings
        if "example_language" in s
    }
    if len(found) != 1:
        return ""
    [(examples, words)] = found
    places = {"english": "in English", "question": "in the language of the question"}
    return f"Worked examples are {places[examples]}, the words around a question {places[words]}."


def _own(
    results: Results, gaps: Sequence[LanguageGap], scoring: str, shots: int
) -> list[LanguageGap]:
    wanted = (scoring, shots, results.main_group)
    return [gap for gap in gaps if (gap.scoring, gap.shots, gap.group) == wanted]


def _in_order(results: Results, gaps: Sequence[LanguageGap]) -> list[LanguageGap]:
    """Languages in the order of the benchmark, in each the models in the order of the report."""
    languages, models = list(results.languages), list(results.models)

    def place(gap: LanguageGap) -> tuple[int, int]:
        return languages.index(gap.language), models.index(gap.model)

    known = [gap for gap in gaps if gap.language in languages and gap.model in models]
    return sorted(known, key=place)


def gap_tables(
    results: Results, gaps: Sequence[LanguageGap], scoring: str, shots: int
) -> list[Table]:
    """Difference to English of every model (rows) in every language (columns): average, then tasks."""
    own = _own(results, gaps, scoring, shots)
    tasks = list(dict.fromkeys(gap.task for gap in own))
    tasks.sort(key=lambda task: task != AVERAGE)  # stable: the average first
    return [_gap_table(results, own, task, scoring, shots) for task in tasks]


def _gap_table(
    results: Results, gaps: Sequence[LanguageGap], task: str, scoring: str, shots: int
) -> Table:
    found = {(gap.model, gap.language): gap for gap in gaps if gap.task == task}
    there = {language for _, language in found}
    order = [*results.languages, *sorted(there.difference(results.languages))]
    languages = [language for language in order if language in there]
    rows = tuple(
        Row(
            model,
            tuple(_cell(found.get((model, code))) for code in languages),
            results.kinds[model],
        )
        for model in results.models
        if any((model, code) in found for code in languages)
    )
    titles = {each.name: each.title for each in results.tasks}
    title = titles.get(task, task)
    return Table(
        id=slug("against-english", task, scoring, f"{shots}shot"),
        title=f"Against English, {title}: {scoring} scoring, {shots}-shot",
        head="Model",
        columns=tuple(Column(language_name(code)) for code in languages),
        rows=rows,
        note="Accuracy less that on the same questions in English, in percentage points, with half the "
        "width of its 95 % interval (paired bootstrap). * : not chance at 5 %, corrected for the number of "
        "tests (Holm).",
    )


def _cell(gap: LanguageGap | None) -> Cell:
    if gap is None:
        return Cell()
    cell = number_cell(100 * gap.difference, signed=True)
    sure = "*" if gap.p_bootstrap_holm < _SURE else ""
    return replace(
        cell,
        text=cell.text + sure,
        deviation=50 * (gap.high - gap.low),
        low=100 * gap.low,
        high=100 * gap.high,
        note=f"{gap.num_questions:,} questions, corrected p {p_cell(gap.p_bootstrap_holm).text}",
    )
