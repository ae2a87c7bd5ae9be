"""Figures of models against each other: accuracy over coverage, and differences with intervals.

Style and format are those of ``figures``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from biomistral.records import Comparison, CoveragePoint
from biomistral.reporting.charts import (
    COLOURS,
    INK,
    LINES,
    MARKERS,
    Chart,
    chart_style,
    legend_columns,
    legend_lines,
    make_chart,
    short_name,
    turn,
)
from biomistral.reporting.model_tables import better_of


def coverage_chart(
    id_: str, caption: str, curves: Mapping[str, Sequence[CoveragePoint]], chance: float | None
) -> Chart:
    """Draw each model's accuracy over the share of questions it answers, the surest first."""
    with chart_style():
        figure = Figure(figsize=(4.6, 3.0 + 0.16 * legend_lines(len(curves))), layout="constrained")
        axes = figure.add_subplot()
        for index, (model, points) in enumerate(curves.items()):
            axes.plot(
                [100 * point.coverage for point in points],
                [100 * point.accuracy for point in points],
                label=short_name(model, 36),
                color=COLOURS[index % len(COLOURS)],
                linestyle=LINES[turn(index) % len(LINES)],
                marker=MARKERS[turn(index) % len(MARKERS)],
                markersize=3,
                linewidth=1.3,
            )
        if chance is not None:
            axes.axhline(100 * chance, color=INK, linestyle="--", linewidth=0.8, alpha=0.7)
        axes.set(xlim=(0, 101), xlabel="Questions answered, %", ylabel="Accuracy, %")
        axes.grid(visible=True, color=INK, alpha=0.15, linewidth=0.5)
        figure.legend(loc="outside lower center", ncols=legend_columns(len(curves)))
        text = "; ".join(
            f"{model} {', '.join(_point(point) for point in points[4::5])}"
            for model, points in curves.items()
        )
        return make_chart(figure, id_, caption, f"Accuracy over coverage. {text}.")


def difference_chart(id_: str, caption: str, rows: Sequence[Comparison]) -> Chart:
    """Draw the difference of each pair with its interval; filled where it is shown not to be 0."""
    with chart_style():
        figure = Figure(figsize=(5.6, 0.85 + 0.26 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        for place, row in enumerate(rows):
            axes.plot([100 * row.low, 100 * row.high], [place, place], color=INK, linewidth=1)
            axes.plot(
                100 * row.difference,
                place,
                marker="o",
                markersize=5,
                color=COLOURS[0],
                fillstyle="full" if better_of(row) else "none",
            )
        names = [f"{short_name(r.first, 18)} − {short_name(r.second, 18)}" for r in rows]
        axes.set_yticks(range(len(rows)), names)
        axes.set_ylim(len(rows) - 0.4, -0.6)  # the first on top, no more room than a row takes
        axes.axvline(0, color=INK, linestyle="--", linewidth=0.8)
        axes.set_xlabel("Difference of accuracy, percentage points")
        axes.grid(visible=True, axis="x", color=INK, alpha=0.15, linewidth=0.5)
        text = "; ".join(
            f"{row.first} less {row.second}: {100 * row.difference:+.1f} "
            f"({100 * row.low:+.1f} to {100 * row.high:+.1f})"
            for row in rows
        )
        return make_chart(figure, id_, caption, f"Differences in points. {text}.")


def _point(point: CoveragePoint) -> str:
    return f"{100 * point.accuracy:.1f} % of the surest {100 * point.coverage:.0f} %"
