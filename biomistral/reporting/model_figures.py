"""Figures of models against each other, and of each in other languages against English.

Style and format are those of ``figures``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from biomistral.records import Comparison, CoveragePoint, LanguageGap
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
    short_names,
    turn,
)
from biomistral.reporting.model_tables import better_of
from biomistral.reporting.score_tables import language_name


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
        short = short_names((name for row in rows for name in (row.first, row.second)), 18)
        names = [f"{short[row.first]} − {short[row.second]}" for row in rows]
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


def gap_chart(id_: str, caption: str, gaps: Sequence[LanguageGap]) -> Chart:
    """Draw what models lose against English: a block for each language, in it a line per model.

    ``gaps`` are in the order to draw from the top, language by language.
    """
    models = list(dict.fromkeys(gap.model for gap in gaps))
    languages = list(dict.fromkeys(gap.language for gap in gaps))
    room = len(models) + 1.5  # of one language, in lines
    with chart_style():
        height = 0.7 + 0.085 * room * len(languages) + 0.16 * legend_lines(len(models))
        figure = Figure(figsize=(4.6, max(2.2, height)), layout="constrained")
        axes = figure.add_subplot()
        for index, model in enumerate(models):
            own = [gap for gap in gaps if gap.model == model]
            places = [languages.index(gap.language) * room + index for gap in own]
            colour = COLOURS[index % len(COLOURS)]
            ends = [100 * gap.low for gap in own], [100 * gap.high for gap in own]
            axes.hlines(places, *ends, color=colour, linewidth=1.2)
            axes.plot(
                [100 * gap.difference for gap in own],
                places,
                linestyle="",
                marker=MARKERS[turn(index) % len(MARKERS)],
                markersize=3.5,
                color=colour,
                label=short_name(model, 36),
            )
        middle = (len(models) - 1) / 2
        names = [language_name(code) for code in languages]
        axes.set_yticks([place * room + middle for place in range(len(languages))], names)
        axes.set_ylim(len(languages) * room - 0.75, -1.25)
        for place in range(1, len(languages)):
            axes.axhline(place * room - 1.25, color=INK, linewidth=0.4, alpha=0.4)
        axes.axvline(0, color=INK, linestyle="--", linewidth=0.8)
        axes.set_xlabel("Accuracy less that in English, points")
        axes.grid(visible=True, axis="x", color=INK, alpha=0.15, linewidth=0.5)
        figure.legend(loc="outside lower center", ncols=legend_columns(len(models)))
        text = "; ".join(
            f"{gap.model} in {language_name(gap.language)}: {100 * gap.difference:+.1f} "
            f"({100 * gap.low:+.1f} to {100 * gap.high:+.1f})"
            for gap in gaps
        )
        return make_chart(figure, id_, caption, f"{caption}, in points. {text}.")


def _point(point: CoveragePoint) -> str:
    return f"{100 * point.accuracy:.1f} % of the surest {100 * point.coverage:.0f} %"
