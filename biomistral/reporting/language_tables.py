"""What models lose in other languages: tables of differences to English, question by question.

Pure: from records to tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from biomistral.records import LanguageGap
from biomistral.reporting.results import AVERAGE, Results
from biomistral.reporting.score_tables import language_name
from biomistral.reporting.tables import Cell, Column, Row, Table, number_cell, slug

_SURE = 0.05


def gap_tables(
    results: Results, gaps: Sequence[LanguageGap], scoring: str, shots: int
) -> list[Table]:
    """Difference to English of every model (rows) in every language (columns): average, then tasks."""
    own = [
        gap
        for gap in gaps
        if (gap.scoring, gap.shots, gap.group) == (scoring, shots, results.main_group)
    ]
    tasks = list(dict.fromkeys(gap.task for gap in own))
    tasks.sort(key=lambda task: task != AVERAGE)  # stable: the average first
    return [_gap_table(results, own, task, scoring, shots) for task in tasks]


def _gap_table(
    results: Results, gaps: Sequence[LanguageGap], task: str, scoring: str, shots: int
) -> Table:
    found = {(gap.model, gap.language): gap for gap in gaps if gap.task == task}
    languages = list(dict.fromkeys(language for _, language in found))
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
        note=f"{gap.num_questions:,} questions, corrected p {gap.p_bootstrap_holm:.3f}",
    )
