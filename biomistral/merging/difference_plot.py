"""A picture of how far two checkpoints are apart, over the layers and by kind of tensor.

Two panels: the relative norm of the difference, and the share of elements whose sign is the same.
Colours are those of Okabe and Ito (safe for colour-blind eyes), doubled by markers, so that it can
be read in grey. The same numbers give the same bytes. Knows nothing about checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from biomistral.errors import InputError
from biomistral.merging.difference import Comparison, Kind, Row, by_kind
from biomistral.merging.layers import comes_before_layers

SUFFIXES = (".svg", ".png", ".pdf")
_LOOKS: dict[Kind, tuple[str, str, str]] = {  # colour, marker, label
    "attention": ("#0072B2", "o", "attention"),
    "mlp": ("#D55E00", "s", "MLP"),
    "norm": ("#009E73", "^", "norms"),
    "other": ("#000000", "D", "embeddings, head and others"),
}
_STYLE: Any = {  # names of Matplotlib's settings
    "svg.hashsalt": "biomistral",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "legend.frameon": False,
    "text.parse_math": False,  # a dollar sign in a model's name is one
}
# A logarithmic axis where the largest difference is this many times the smallest.
_WIDE = 30
_MANY_LAYERS = 40  # from which markers are drawn smaller
_STEPS = (1, 2, 5, 10, 20, 50, 100, 1000)
_MOST_TICKS = 14
_LONGEST_NAME = 40  # characters of a model's name


def check_suffix(file: Path) -> None:
    """Raise ``InputError`` for a file that cannot be drawn."""
    if file.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"{file}: cannot be drawn as {file.suffix or 'a file without a suffix'}; name a file "
            f"that ends in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        )


def plot(comparison: Comparison, file: Path) -> None:
    """Draw a comparison to an SVG, PNG or PDF file. Raises ``InputError`` for other suffixes."""
    check_suffix(file)
    rows = by_kind(comparison.rows)
    x = _positions(rows)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.5, 5.2), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
        _draw(upper, rows, x, [100 * row.difference.relative_norm for row in rows])
        _draw(lower, rows, x, [100 * row.difference.sign_agreement for row in rows])
        upper.set_ylabel("Relative norm of the difference, %")
        note = _scale(upper, rows)
        lower.set(ylabel="Same sign, %", xlabel=f"Layer{note}")
        lower.yaxis.set_major_locator(MaxNLocator(5))
        lower.yaxis.set_major_formatter(FuncFormatter(_plain))
        _mark_layers(upper, lower, rows, x)
        handles, labels = upper.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        figure.suptitle(f"{_short(comparison.b)} compared with {_short(comparison.a)}", fontsize=10)
        undated: dict[str, Any] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
        figure.savefig(file, dpi=200, metadata=undated.get(file.suffix.lower()))


def _positions(rows: Sequence[Row]) -> list[float]:
    """Place layers side by side in their order, embeddings before them and the rest behind."""
    keys = dict.fromkeys((row.stack, row.layer) for row in rows if row.stack is not None)
    places: dict[object, float] = {key: float(index) for index, key in enumerate(keys)}
    margin = max(1.0, 0.06 * len(places))
    ends = {True: -margin, False: len(places) - 1 + margin}
    return [places.get((row.stack, row.layer), ends[comes_before_layers(row.name)]) for row in rows]


def _draw(axes: Axes, rows: Sequence[Row], x: Sequence[float], y: Sequence[float]) -> None:
    num_layers = len({place for place, row in zip(x, rows, strict=True) if row.stack is not None})
    size = 4.0 if num_layers < _MANY_LAYERS else 2.5
    for kind, (colour, marker, label) in _LOOKS.items():
        chosen = [index for index, row in enumerate(rows) if row.kind == kind]
        if not chosen:
            continue
        looks: dict[str, Any] = {"color": colour, "marker": marker, "markersize": size}
        axes.plot([], [], linewidth=1, label=label, **looks)
        for stack in dict.fromkeys(rows[index].stack for index in chosen):
            here = [index for index in chosen if rows[index].stack == stack]
            line = {"linewidth": 1.0} if stack is not None else {"linestyle": ""}
            axes.plot([x[i] for i in here], [y[i] for i in here], **line, **looks)
    axes.grid(visible=True, axis="y", color="#000000", alpha=0.15, linewidth=0.5)
    axes.set_axisbelow(True)


def _scale(axes: Axes, rows: Sequence[Row]) -> str:
    """Take a logarithmic axis for differences of several orders of magnitude; say what it hides."""
    values = [row.difference.relative_norm for row in rows]
    shown = [value for value in values if 0 < value < math.inf]
    if not shown or max(shown) <= _WIDE * min(shown):
        axes.set_ylim(bottom=0)
        return ""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(_plain))
    return " (tensors that are equal are not in the upper panel)" if 0 in values else ""


def _mark_layers(upper: Axes, lower: Axes, rows: Sequence[Row], x: Sequence[float]) -> None:
    """Write numbers of layers, and where there are several stacks, the name of each."""
    layers = dict(
        sorted({place: row for place, row in zip(x, rows, strict=True) if row.stack}.items())
    )
    step = next(step for step in _STEPS if len(layers) <= _MOST_TICKS * step)
    ticks = {place: str(row.layer) for place, row in layers.items() if (row.layer or 0) % step == 0}
    for place, row in zip(x, rows, strict=True):
        if row.stack is None:
            ticks[place] = "emb." if comes_before_layers(row.name) else "head"
    lower.set_xticks(list(ticks), list(ticks.values()))
    firsts = {row.stack: place for place, row in reversed(layers.items())}
    if len(firsts) > 1:
        for stack, place in firsts.items():
            for axes in (upper, lower):
                axes.axvline(place - 0.5, color="#000000", linestyle=":", linewidth=0.6)
            name = str(stack).removesuffix(".")
            upper.annotate(name, (place - 0.4, 1), xycoords=("data", "axes fraction"), fontsize=7)


def _plain(value: float, _position: int) -> str:
    """Write a number as it is: 0.01, not 10 to the minus second."""
    return f"{value:.6g}"


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
