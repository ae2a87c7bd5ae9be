"""Figures as SVG to be put inside a page: bars with intervals, reliability diagrams, loss curves.

Colours are those of Okabe and Ito (safe for colour-blind eyes), doubled by hatches and markers.
Axes and text take the colour and the font of the page around them, so one figure serves a light
and a dark page. The same numbers give the same bytes. Knows nothing about the rest of the page.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from biomistral.records import ReliabilityBin, Score
from biomistral.reporting.run_tables import LogLine
from biomistral.reporting.tables import DASH

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7")
HATCHES = ("", "///", "...", "xxx", "\\\\\\")
MARKERS = ("o", "s", "^", "D", "v", "P")
LINES = ("-", "--", "-.", ":")
INK = "#010203"  # stands for the colour of the page's text until the figure is in the page
_PAPER = "#030201"  # likewise for its background
_LONGEST_NAME = 24  # characters of a model's name on an axis
_MOST_POINTS = 200  # of a curve; more cannot be seen

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be searched, copied and read aloud
    "svg.hashsalt": "biomistral",
    "font.size": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.unicode_minus": True,
    "hatch.linewidth": 0.5,
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a model's name is one
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8,
}


@dataclass(frozen=True, slots=True)
class Chart:
    """One figure: its caption, its SVG, and what it shows in words (in the SVG's aria-label)."""

    id: str
    caption: str
    svg: str
    text: str


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
        axes.set_yticks(range(len(scores)), [short_name(model) for model in scores])
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

    ``after`` are the bins after calibrating, drawn hollow and dotted.
    """
    bins = [b for b in sorted(bins, key=lambda b: b.low) if b.num_answers]
    after = [b for b in sorted(after, key=lambda b: b.low) if b.num_answers]
    with chart_style():
        figure = Figure(figsize=(2.9, 3.1), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        colour = COLOURS[index % len(COLOURS)]
        upper.plot([0, 1], [0, 1], color=INK, linestyle="--", linewidth=0.8, alpha=0.7)
        upper.plot(
            [b.mean_confidence for b in bins],
            [b.accuracy for b in bins],
            color=colour,
            marker=MARKERS[turn(index) % len(MARKERS)],
            linestyle=LINES[index // len(COLOURS) % len(LINES)],
            markersize=4.5,
            clip_on=False,  # a marker at 0 or 1 is shown whole
            zorder=3,
        )
        upper.plot(
            [b.mean_confidence for b in after],
            [b.accuracy for b in after],
            color=colour,
            marker="o",
            markerfacecolor=_PAPER,
            linestyle=":",
            linewidth=1,
            markersize=4,
            clip_on=False,
            zorder=3.5,
        )
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
            text += f" After calibrating: {_bins_in_words(after)}."
        return make_chart(figure, id_, caption, text)


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
    rim = axes.errorbar(100 * value, place, xerr=sides, color=_PAPER, linewidth=3, zorder=3)
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
        figure = Figure(figsize=(4.6, 2.6 + 0.16 * len(curves)), layout="constrained")
        axes = figure.add_subplot()
        for index, (name, points) in enumerate(curves.items()):
            axes.plot(
                [tokens for tokens, _ in points],
                [loss for _, loss in points],
                label=short_name(name, 2 * _LONGEST_NAME),
                color=COLOURS[index % len(COLOURS)],
                linestyle=LINES[turn(index) % len(LINES)],
                linewidth=1.3,
                marker=MARKERS[turn(index) % len(MARKERS)] if marked else "",
                markersize=4,
            )
        axes.set(xlabel="Tokens", ylabel=f"{label}, {unit}" if unit else label)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.grid(visible=True, color=INK, alpha=0.15, linewidth=0.5)
        figure.legend(loc="outside lower center")
        text = "; ".join(
            f"{name}: from {points[0][1]:.4g} to {points[-1][1]:.4g} at {points[-1][0]:,.0f} tokens"
            for name, points in curves.items()
        )
        return make_chart(figure, id_, caption, f"{label} over tokens. {text}.")


def turn(index: int) -> int:
    """Shift by one each time the colours begin again: colour and marker do not repeat together."""
    return index + index // len(COLOURS)


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


def short_name(name: str, longest: int = _LONGEST_NAME) -> str:
    """Cut a long name in its middle: the ends tell models of one family apart."""
    if len(name) <= longest:
        return name
    half = (longest - 1) // 2
    return f"{name[:half]}…{name[-half:]}"


def chart_style() -> Any:
    """Defaults of the library, not of the user's own settings, and our style on top."""
    style: Any = {key: value for key, value in mpl.rcParamsDefault.items() if key != "backend"}
    return mpl.rc_context(style | _STYLE)


def make_chart(figure: Figure, id_: str, caption: str, text: str) -> Chart:
    """Turn a drawn figure into one for the page."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    return Chart(id_, caption, _inline(stream.getvalue(), id_, text), text)


def _inline(svg: str, prefix: str, text: str) -> str:
    """Fit a whole SVG file for the inside of a page.

    Drops its head, metadata and style sheet (it would reach over the whole page) and the ids
    nobody refers to, and makes the others distinct among several figures.
    """
    box = re.search(r'viewBox="([^"]+)"', svg)
    assert box, "matplotlib writes a viewBox"
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    body = re.sub(
        r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL
    )
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))
    body = re.sub(
        r' id="([^"]*)"', lambda m: f' id="{prefix}-{m[1]}"' if m[1] in used else "", body
    )
    body = re.sub(r'(?:xlink:)?href="#', f'href="#{prefix}-', body)
    body = body.replace("url(#", f"url(#{prefix}-").replace(INK, "currentColor")
    body = body.replace(_PAPER, "var(--paper)")
    # The page's own font: `font: 9px 'DejaVu Sans', ...` becomes its size alone.
    body = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", body)
    head = f'<svg viewBox="{box[1]}" role="img" aria-label="{_attribute(text)}">'
    return head + re.sub(r"\n\s*\n*", "\n", body).strip()


def _attribute(text: str) -> str:
    for character, entity in (("&", "&amp;"), ('"', "&quot;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(character, entity)
    return text
