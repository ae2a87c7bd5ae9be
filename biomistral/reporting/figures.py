"""The figures of models and trainings: bars with intervals, reliability diagrams, loss curves.

Style and format are those of ``charts``. Knows nothing about the page around them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator, NullLocator

from biomistral.records import ReliabilityBin, Score
from biomistral.reporting.charts import (
    COLOURS,
    HATCHES,
    INK,
    LINES,
    LONGEST_NAME,
    MARKERS,
    PAPER,
    Chart,
    chart_style,
    legend_columns,
    legend_lines,
    make_chart,
    short_name,
    short_names,
    turn,
)
from biomistral.reporting.run_tables import LogLine
from biomistral.reporting.tables import DASH

_MOST_POINTS = 200  # of a curve; more cannot be seen
_UNEQUAL = 10  # lengths of runs from which the axis of tokens is logarithmic


def accuracy_chart(
    id_: str, caption: str, scores: Mapping[str, Score | None], chance: float | None
) -> Chart:
    """Draw one bar per model with its 95 % interval, and a dashed line where chance is.

    ``scores`` are accuracies by model, in the order to draw from the top; None is drawn as a dash.
    """
    with chart_style():
        figure = Figure(figsize=(4.6, 0.75 + 0.29 * len(scores)), layout="constrained")
        axes = figure.add_subplot()
        for place, score in enumerate(scores.values()):
            if score is None:
                axes.text(1, place, DASH, verticalalignment="center")
            else:
                _bar(axes, place, score)
        axes.set_yticks(range(len(scores)), list(short_names(scores).values()))
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.set_xlabel("Accuracy, %")
        axes.grid(visible=True, axis="x", color=INK, alpha=0.15, linewidth=0.5)
        axes.set_axisbelow(True)
        if chance is not None:
            axes.axvline(100 * chance, color=INK, linestyle="--", linewidth=1)
        text = "; ".join(f"{model} {_words(score)}" for model, score in scores.items())
        if chance is not None:
            text += f"; chance {100 * chance:.1f} % (dashed line)"
        return make_chart(figure, id_, caption, f"Bar chart of accuracy. {text}.")


def reliability_chart(
    id_: str,
    caption: str,
    bins: Sequence[ReliabilityBin],
    index: int = 0,
    after: Sequence[ReliabilityBin] = (),
) -> Chart:
    """Draw accuracy against confidence over a histogram of the answers; empty bins are left out.

    ``after`` are the bins after calibrating, drawn hollow and dotted. Points grow with the number
    of answers in them.
    """
    bins = [b for b in sorted(bins, key=lambda b: b.low) if b.num_answers]
    after = [b for b in sorted(after, key=lambda b: b.low) if b.num_answers]
    with chart_style():
        figure = Figure(figsize=(2.9, 3.1), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        colour = COLOURS[index % len(COLOURS)]
        upper.plot([0, 1], [0, 1], color=INK, linestyle="--", linewidth=0.8, alpha=0.7)
        drawn = {"color": colour, "linewidth": 1.3, "zorder": 3}
        marker = MARKERS[turn(index) % len(MARKERS)]
        line = LINES[index // len(COLOURS) % len(LINES)]
        handles = [_bin_points(upper, bins, {**drawn, "marker": marker, "linestyle": line})]
        if after:
            hollow = {"marker": "o", "linestyle": ":", "markerfacecolor": PAPER}
            handles.append(_bin_points(upper, after, {**drawn, **hollow}))
        upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="Accuracy")
        upper.grid(visible=True, color=INK, alpha=0.15, linewidth=0.5)
        lower.bar(
            [b.low for b in bins],
            [b.num_answers for b in bins],
            width=[b.high - b.low for b in bins],
            align="edge",
            color=colour,
            hatch=HATCHES[index // len(COLOURS) % len(HATCHES)],
            edgecolor=INK,
            linewidth=0,
        )
        lower.set(xlabel="Confidence", ylabel="Answers")
        lower.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        lower.yaxis.set_major_formatter(EngFormatter(sep=""))
        text = f"Reliability diagram of {caption}. {_bins_in_words(bins)}."
        if after:
            labels = ["as it is", "temperature-scaled"]
            figure.legend(handles, labels, loc="outside upper center", ncols=2, handlelength=2.2)
            text += f" After calibrating: {_bins_in_words(after)}."
        return make_chart(figure, id_, caption, text)


def _bin_points(axes: Axes, bins: Sequence[ReliabilityBin], looks: Mapping[str, Any]) -> Line2D:
    """Join bins by a line; the more answers a bin has, the larger is its point."""
    most = max((b.num_answers for b in bins), default=1)
    places = [(b.mean_confidence, b.accuracy) for b in bins]
    axes.plot(*zip(*places, strict=True), **{**looks, "marker": ""})
    for place, b in zip(places, bins, strict=True):
        size = 2.5 + 3.5 * math.sqrt(b.num_answers / most)
        # Not clipped: a marker at 0 or 1 is shown whole.
        axes.plot(*place, **{**looks, "zorder": 3.5}, markersize=size, clip_on=False)
    return Line2D([], [], markersize=4.5, **looks)


def loss_chart(id_: str, caption: str, logs: Mapping[str, Sequence[LogLine]]) -> Chart | None:
    """Draw the training loss of each model over tokens; None if there is none."""
    curves = {
        model: _thinned([(x.tokens, x.loss) for x in log if x.loss is not None])
        for model, log in logs.items()
    }
    return _curves(id_, caption, curves, "Training loss", marked=False)


def held_out_chart(id_: str, caption: str, logs: Mapping[str, Sequence[LogLine]]) -> Chart | None:
    """Draw the held-out loss of each model and corpus over tokens; None if there is none."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for model, log in logs.items():
        for line in log:
            for corpus, loss in line.held_out_loss.items():
                curves.setdefault(f"{model}, {corpus}", []).append((line.tokens, loss))
    return _curves(id_, caption, curves, "Held-out loss", marked=True)


def rate_chart(id_: str, caption: str, logs: Mapping[str, Sequence[LogLine]]) -> Chart | None:
    """Draw the learning rate of each model over tokens; None if there is none."""
    curves = {
        model: [(x.tokens, x.learning_rate) for x in log if x.learning_rate is not None]
        for model, log in logs.items()
    }
    return _curves(id_, caption, curves, "Learning rate", marked=False, unit="")


def _bar(axes: Axes, place: int, score: Score) -> None:
    is_baseline = score.model_kind == "baseline"
    axes.barh(
        place,
        100 * score.value,
        height=0.7,
        color="#999999" if is_baseline else COLOURS[place % len(COLOURS)],
        hatch="" if is_baseline else HATCHES[place // len(COLOURS) % len(HATCHES)],
        edgecolor=INK,
        linewidth=0.4,
    )
    if score.low is not None and score.high is not None and score.low < score.high:
        _whisker(axes, place, score.value, (score.low, score.high))


def _whisker(axes: Axes, place: int, value: float, ends: tuple[float, float]) -> None:
    sides = [[max(100 * (value - ends[0]), 0)], [max(100 * (ends[1] - value), 0)]]
    # A rim in the colour of the page keeps the whisker apart from the bar below it.
    rim = axes.errorbar(100 * value, place, xerr=sides, color=PAPER, linewidth=3, zorder=3)
    ink = axes.errorbar(
        100 * value, place, xerr=sides, color=INK, capsize=2.5, linewidth=1, zorder=4
    )
    for part in (*rim.get_children(), *ink.get_children()):
        part.set_clip_on(False)  # caps at 0 and 100 are shown whole


def _curves(
    id_: str,
    caption: str,
    curves: Mapping[str, Sequence[tuple[float, float]]],
    label: str,
    *,
    marked: bool,
    unit: str = "nats per token",
) -> Chart | None:
    curves = {name: points for name, points in curves.items() if points}
    if not curves:
        return None
    with chart_style():
        figure = Figure(figsize=(4.6, 2.6 + 0.16 * legend_lines(len(curves))), layout="constrained")
        axes = figure.add_subplot()
        for index, (name, points) in enumerate(curves.items()):
            axes.plot(
                [tokens for tokens, _ in points],
                [loss for _, loss in points],
                label=short_name(name, 2 * LONGEST_NAME),
                color=COLOURS[index % len(COLOURS)],
                linestyle=LINES[turn(index) % len(LINES)],
                linewidth=1.3,
                marker=MARKERS[turn(index) % len(MARKERS)] if marked else "",
                markersize=4,
            )
        axes.set(xlabel="Tokens", ylabel=f"{label}, {unit}" if unit else label)
        _token_axis(axes, list(curves.values()))
        axes.grid(visible=True, color=INK, alpha=0.15, linewidth=0.5)
        figure.legend(loc="outside lower center", ncols=legend_columns(len(curves)))
        text = "; ".join(
            f"{name}: from {points[0][1]:.4g} to {points[-1][1]:.4g} at {points[-1][0]:,.0f} tokens"
            for name, points in curves.items()
        )
        return make_chart(figure, id_, caption, f"{label} over tokens. {text}.")


def _token_axis(axes: Axes, curves: Sequence[Sequence[tuple[float, float]]]) -> None:
    """Make the axis logarithmic where a short run would be a stroke beside a long one."""
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    lengths = [points[-1][0] for points in curves if points[-1][0] > 0]
    if lengths and max(lengths) >= _UNEQUAL * min(lengths):
        axes.set_xscale("symlog", linthresh=min(lengths) / 10)  # a start at 0 has its place
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6))


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Means of equally many neighbours, so that at most ``_MOST_POINTS`` are left."""
    size = -(-len(points) // _MOST_POINTS) or 1
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(g[-1][0], sum(loss for _, loss in g) / len(g)) for g in groups]


def _bins_in_words(bins: Sequence[ReliabilityBin]) -> str:
    return "; ".join(
        f"confidence {b.mean_confidence:.2f}: accuracy {b.accuracy:.2f} of {b.num_answers}"
        for b in bins
    )


def _words(score: Score | None) -> str:
    if score is None:
        return "not measured"
    text = f"{100 * score.value:.1f} %"
    if score.low is None or score.high is None:
        return text
    return f"{text} (interval {100 * score.low:.1f} to {100 * score.high:.1f})"
