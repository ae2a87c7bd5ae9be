"""What a table is: rows of cells with text to print, a value to sort by and a mark.

The one place that turns fractions into percent. Knows nothing about HTML, Markdown or LaTeX, nor
about which tables a report has.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from biomistral.records import Score

DASH = "–"  # an absent result; never 0

Better = Literal["higher", "lower"]
Mark = Literal["", "best", "second"]
RowKind = Literal["model", "ensemble", "baseline"]


@dataclass(frozen=True, slots=True)
class Metric:
    """How a metric is printed."""

    label: str
    decimals: int
    better: Better | None = None  # None: no mark for the best
    percent: bool = False
    note: str = ""


METRICS: dict[str, Metric] = {
    "accuracy": Metric("Accuracy, %", 1, "higher", percent=True),
    "accuracy_deviation": Metric("Deviation, %", 1, percent=True, note="over seeds, population"),
    "accuracy_micro": Metric(
        "Micro average, %", 1, "higher", percent=True, note="every question counts the same"
    ),
    "accuracy_top": Metric(
        "Top token, %",
        1,
        "higher",
        percent=True,
        note="the most probable token is the right letter",
    ),
    "accuracy_at_80": Metric(
        "Surest 80 %, %", 1, "higher", percent=True, note="accuracy on the surest 80 % of questions"
    ),
    "accuracy_at_50": Metric(
        "Surest half, %", 1, "higher", percent=True, note="accuracy on the surest half of questions"
    ),
    "risk_coverage_area": Metric(
        "Risk-coverage area", 3, "lower", note="mean error over all shares of questions answered"
    ),
    "auroc": Metric(
        "AUROC", 3, "higher", note="how well confidence tells right answers from wrong ones"
    ),
    "position_bias": Metric(
        "Distance", 3, "lower", note="of the places chosen from the right ones, 0 to 1"
    ),
    "temperature": Metric("Temperature", 2, note="above 1: the model is too sure of itself"),
    "ece": Metric(
        "ECE, %", 1, "lower", percent=True, note="expected calibration error, 15 equal bins"
    ),
    "ece_mass": Metric(
        "ECE, equal mass, %", 1, "lower", percent=True, note="15 bins of equally many answers"
    ),
    "ece_published": Metric(
        "ECE as published, %", 1, "lower", percent=True, note="5 bins, letters not renormalised"
    ),
    "brier": Metric(
        "Brier",
        3,
        "lower",
        note="squared error of the probabilities, summed over the choices (0 to 2)",
    ),
    "negative_log_likelihood": Metric("NLL", 3, "lower", note="nats per question"),
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell. Numbers are in the unit that is printed; all None in a cell of plain text."""

    text: str = DASH
    value: float | None = None
    deviation: float | None = None
    low: float | None = None
    high: float | None = None
    decimals: int = 1
    note: str = ""
    mark: Mark = ""
    score: Score | None = None  # that it prints, if it prints one

    @property
    def spread(self) -> str:
        """The deviation as printed behind the value, or nothing."""
        return "" if self.deviation is None else f"± {self.deviation:.{self.decimals}f}"

    @property
    def hover(self) -> str:
        """The interval and the note in words, or nothing."""
        parts = [] if self.low is None or self.high is None else [f"95 % interval {self.interval}"]
        return "; ".join([*parts, self.note] if self.note else parts)

    @property
    def interval(self) -> str:
        """``low to high`` as printed; a dash where there is no interval."""
        if self.low is None or self.high is None:
            return DASH
        return f"{self.low:.{self.decimals}f} to {self.high:.{self.decimals}f}"


@dataclass(frozen=True, slots=True)
class Column:
    """Head of a column. ``better`` says whether and how its best cell is marked."""

    title: str
    better: Better | None = None
    note: str = ""
    is_text: bool = False  # set flush left; numbers are set flush right


@dataclass(frozen=True, slots=True)
class Row:
    """One line; baselines are set apart at the bottom and never marked."""

    label: str
    cells: tuple[Cell, ...]
    kind: RowKind = "model"


@dataclass(frozen=True, slots=True)
class Table:
    """A table ready to be printed in any format. ``id`` is also the name of its CSV file."""

    id: str
    title: str
    head: str  # title of the column of labels
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: str = ""

    @property
    def is_marked(self) -> bool:
        """Whether any cell is marked, so that the marks want explaining."""
        return any(cell.mark for row in self.rows for cell in row.cells)


def metric_of(name: str) -> Metric:
    """How to print a metric; one nobody told us about is printed plainly and never marked."""
    return METRICS.get(name, Metric(name.replace("_", " "), 3))


def number_cell(value: float | None, decimals: int = 1, *, signed: bool = False) -> Cell:
    """Print one number, with a true minus sign; absent or not a number is a dash."""
    if value is None or not math.isfinite(value):
        return Cell()
    text = f"{value:{'+' if signed else ''},.{decimals}f}".replace("-", "\N{MINUS SIGN}")
    if not any(digit in text for digit in "123456789"):
        text = text.lstrip("+\N{MINUS SIGN}")  # what rounds to nothing has no sign
    return Cell(text, value, decimals=decimals)


def count_cell(value: int | None) -> Cell:
    """Print a count with commas between the thousands."""
    return Cell() if value is None else Cell(f"{value:,}", float(value), decimals=0)


def p_cell(value: float | None) -> Cell:
    """Print a p-value; a small one as a bound."""
    if value is None:
        return Cell()
    return Cell("< 0.001" if value < 0.001 else f"{value:.3f}", value, decimals=3)


def text_cell(text: str) -> Cell:
    """Print plain text; empty text is a dash."""
    return Cell(text or DASH)


def score_cell(
    score: Score | None, deviation: Score | None = None, *, name: str | None = None
) -> Cell:
    """Print a score in the unit of its metric, with its deviation if there were several seeds.

    ``name`` is the metric it is printed like, if not its own.
    """
    if score is None or not math.isfinite(score.value):
        return Cell()
    metric = metric_of(name or score.metric)
    factor = 100.0 if metric.percent else 1.0
    shown = deviation is not None and deviation.num_seeds > 1 and math.isfinite(deviation.value)
    return replace(
        number_cell(score.value * factor, metric.decimals),
        deviation=deviation.value * factor if shown and deviation else None,
        low=None if score.low is None else score.low * factor,
        high=None if score.high is None else score.high * factor,
        note=f"{_counted(score.num_questions, 'question')}, {_counted(score.num_seeds, 'seed')}",
        score=score,
    )


def with_marks(table: Table) -> Table:
    """Mark the best and the second best of each column that says what is better.

    Numbers that print the same are the same: ties share a mark. The second best is the next
    number that prints differently. Baselines take no part, and a single model is not compared.
    """
    columns = [_marks(table, index) for index in range(len(table.columns))]
    rows = [
        replace(
            row,
            cells=tuple(
                replace(cell, mark=columns[c][r] if row.kind != "baseline" else "")
                for c, cell in enumerate(row.cells)
            ),
        )
        for r, row in enumerate(table.rows)
    ]
    return replace(table, rows=tuple(rows))


def _marks(table: Table, column: int) -> list[Mark]:
    """Marks of one column, one per row of the table."""
    none: list[Mark] = [""] * len(table.rows)
    better = table.columns[column].better
    contest = [
        (row.cells[column].value or 0.0, row.cells[column].text)
        for row in table.rows
        if row.kind != "baseline" and row.cells[column].value is not None
    ]
    if better is None or len(contest) < 2:
        return none
    ranked = list(dict.fromkeys(t for _, t in sorted(contest, reverse=better == "higher")))
    if len(ranked) < 2:
        return none
    marks: dict[str, Mark] = {ranked[0]: "best", ranked[1]: "second"}
    return [marks.get(row.cells[column].text, "") for row in table.rows]


def slug(*parts: str) -> str:
    """Join parts to a name that is safe in a file name, an id of HTML and a LaTeX label."""
    return "-".join(re.sub(r"[^A-Za-z0-9]+", "-", part).strip("-").lower() for part in parts)


def unique_names(names: Sequence[str]) -> dict[str, str]:
    """Give every name a safe, distinct stem of a file name, recognisable where that is possible."""
    stems: dict[str, str] = {}
    for name in names:
        stem = plain = re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII).lstrip(".") or "_"
        count = 1
        while stem.lower() in {taken.lower() for taken in stems.values()}:
            count += 1
            stem = f"{plain}-{count}"
        stems[name] = stem
    return stems


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
