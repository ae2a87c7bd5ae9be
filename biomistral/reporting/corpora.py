"""The section on corpora: what is in them, and how many test questions.

Pure: from manifests and records to tables and a figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from biomistral.languages import LANGUAGES
from biomistral.records import TaskOverlap
from biomistral.reporting.charts import (
    COLOURS,
    HATCHES,
    INK,
    Chart,
    chart_style,
    legend_columns,
    legend_lines,
    make_chart,
    short_name,
)
from biomistral.reporting.model_sections import Section
from biomistral.reporting.results import Results
from biomistral.reporting.run_tables import Artefact, corpus_tables
from biomistral.reporting.score_tables import language_name
from biomistral.reporting.tables import Column, Row, Table, count_cell, slug, text_cell

Overlaps = Mapping[str, Sequence[TaskOverlap]]  # by corpus
_HEADS = ("Questions", "Too short to judge", "Found", "Half found")
_NOTE = (
    "Found: 13 words in a row of it are in the corpus. Half found: half of all its runs of 13 words "
    "do. Questions without 13 words in a row can be neither found nor excluded."
)
_TOKENS = "tokens_by_language"


def corpora_section(corpora: Sequence[Artefact], overlaps: Overlaps, results: Results) -> Section:
    """Counts of every corpus, its languages, and the test questions that stand in it."""
    chart = language_chart(corpora)
    return Section(
        "corpora",
        "Corpora",
        tables=[*corpus_tables(corpora), *overlap_tables(overlaps, results)],
        charts=[chart] if chart else [],
        folded=overlap_by_language_tables(overlaps, results),
    )


def overlap_tables(overlaps: Overlaps, results: Results) -> list[Table]:
    """One table for each corpus: how many test questions stand in it, by task."""
    titles = {task.name: task.title for task in results.tasks}
    tables = []
    for corpus, lines in overlaps.items():
        by_task: dict[str, list[TaskOverlap]] = {}
        for line in lines:
            by_task.setdefault(line.task, []).append(line)
        rows = []
        for task, own in by_task.items():
            names = [language_name(code) for code in dict.fromkeys(line.language for line in own)]
            languages = names[0] if len(names) == 1 else f"{len(names)} languages"
            sums = [sum(column) for column in zip(*map(_counts, own), strict=True)]
            cells = (text_cell(languages), *map(count_cell, sums))
            rows.append(Row(titles.get(task, task), cells))
        title = f"Test questions in the text of {corpus}"
        tables.append(_table(slug("overlap", corpus), title, rows))
    return tables


def overlap_by_language_tables(overlaps: Overlaps, results: Results) -> list[Table]:
    """The same, language by language, where there are several."""
    titles = {task.name: task.title for task in results.tasks}
    tables = []
    for corpus, lines in overlaps.items():
        if len({line.language for line in lines}) < 2:
            continue
        rows = [
            Row(
                titles.get(line.task, line.task),
                (text_cell(language_name(line.language)), *map(count_cell, _counts(line))),
            )
            for line in lines
        ]
        title = f"Test questions in the text of {corpus}, by language"
        tables.append(_table(slug("overlap-by-language", corpus), title, rows))
    return tables


def language_chart(corpora: Sequence[Artefact]) -> Chart | None:
    """Draw the tokens of each language, a bar for each corpus; None if there is one language."""
    counts = {corpus.name: _tokens(corpus) for corpus in corpora}
    found = {code for own in counts.values() for code in own}
    languages = [code for code in LANGUAGES if code in found]
    languages += sorted(found.difference(LANGUAGES))
    if len(languages) < 2:
        return None
    shown = {name: own for name, own in counts.items() if own}
    width = 0.8 / len(shown)
    with chart_style():
        height = 0.8 + (0.12 + 0.16 * len(shown)) * len(languages) + 0.16 * legend_lines(len(shown))
        figure = Figure(figsize=(4.6, height), layout="constrained")
        axes = figure.add_subplot()
        for index, (name, own) in enumerate(shown.items()):
            axes.barh(
                [place - 0.4 + (index + 0.5) * width for place in range(len(languages))],
                [own.get(code, 0) for code in languages],
                height=width,
                color=COLOURS[index % len(COLOURS)],
                hatch=HATCHES[index % len(HATCHES)],
                edgecolor=INK,
                linewidth=0.4,
                label=short_name(name, 36),
            )
        axes.set_yticks(range(len(languages)), [language_name(code) for code in languages])
        axes.set_ylim(len(languages) - 0.5, -0.5)
        axes.set_xlabel("Tokens")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.grid(visible=True, axis="x", color=INK, alpha=0.15, linewidth=0.5)
        axes.set_axisbelow(True)
        figure.legend(loc="outside lower center", ncols=legend_columns(len(shown)))
        text = "; ".join(
            f"{name}: {', '.join(f'{language_name(c)} {own[c]:,}' for c in languages if c in own)}"
            for name, own in shown.items()
        )
        return make_chart(figure, "corpus-languages", "Tokens by language", f"Tokens. {text}.")


def _tokens(corpus: Artefact) -> dict[str, int]:
    found = corpus.counts.get(_TOKENS)
    return {str(code): int(num) for code, num in found.items()} if isinstance(found, dict) else {}


def _counts(line: TaskOverlap) -> tuple[int, int, int, int]:
    return line.num_questions, line.num_too_short, line.num_found, line.num_half_found


def _table(id_: str, title: str, rows: Sequence[Row]) -> Table:
    columns = (Column("Language", is_text=True), *map(Column, _HEADS))
    return Table(id_, title, "Task", columns, tuple(rows), _NOTE)
