"""The section on what training and merging changed: distances between models, layer by layer.

Pure: from records to tables and figures. Knows nothing about how they were measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from biomistral.records import LayerDistance
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
from biomistral.reporting.model_sections import Section
from biomistral.reporting.tables import Cell, Column, Row, Table, number_cell, slug, text_cell

ALL = "all"  # layers, or kinds of tensors
_KINDS = {"attention": "Attention, %", "mlp": "MLP, %", "norm": "Norms, %"}
_NOTE = (
    "Distance: norm of the difference over the norm of the other model. Cosine: of the angle between "
    "the two. Same sign: share of the weights."
)
# A logarithmic axis where the largest distance is this many times the smallest.
_WIDE = 30
# What tensors outside the layers are called on an axis; the first that is in the name.
_TICKS = {"embed": "emb.", "lm_head": "head", "norm": "norm"}
_MANY_LAYERS = 40  # from which markers are drawn smaller

Rows = Sequence[LayerDistance]


def distances_section(by_model: Mapping[str, Rows], remarks: Sequence[str] = ()) -> Section:
    """How far each model is from those it was made from; ``remarks``: what cannot be compared."""
    text = (
        "How far the weights of each model are from those of the models it was made from, layer by "
        "layer."
    )
    if remarks:
        text += f" {' '.join(f'{remark}.' for remark in remarks)}"
    charts = [_chart(model, rows) for model, rows in by_model.items() if rows]
    return Section(
        "distances",
        "What training and merging changed",
        text,
        tables=[totals_table(by_model)],
        charts=charts,
        folded=[
            layers_table(model, other, own)
            for model, rows in by_model.items()
            for other, own in _by_other(rows).items()
        ],
    )


def totals_table(by_model: Mapping[str, Rows]) -> Table:
    """One row per model and model that it was made from, all weights together."""
    rows = [
        Row(model, (text_cell(row.other), *_cells(row)))
        for model, own in by_model.items()
        for row in own
        if (row.layer, row.kind) == (ALL, ALL)
    ]
    columns = (
        Column("Against", is_text=True, note="a model that it was made from"),
        *map(Column, ("Distance, %", "Cosine", "Same sign, %")),
    )
    return Table("distances", "Distances between models", "Model", columns, tuple(rows), _NOTE)


def layers_table(model: str, other: str, rows: Rows) -> Table:
    """One row per layer, and per tensor outside all layers, in order; and by kind of tensor."""
    by_place = {(row.layer, row.kind): row for row in rows}
    lines = []
    for layer in dict.fromkeys(row.layer for row in rows if row.layer != ALL):
        parts = [by_place.get((layer, kind)) for kind in _KINDS]
        shares = [_distance(part) for part in parts]
        distance, *others = _cells(by_place[layer, ALL])
        lines.append(Row(_shown(layer), (distance, *shares, *others)))
    heads = ("Distance, %", *_KINDS.values(), "Cosine", "Same sign, %")
    return Table(
        slug("distances", model, other),
        f"{model} against {other}, layer by layer",
        "Layer",
        tuple(map(Column, heads)),
        tuple(lines),
    )


def _chart(model: str, rows: Rows) -> Chart:
    """Draw distance and agreement of signs over the layers, a line per other model."""
    curves = {
        other: [row for row in own if row.kind == ALL and row.layer != ALL]
        for other, own in _by_other(rows).items()
    }
    places = _places(dict.fromkeys(row.layer for own in curves.values() for row in own))
    with chart_style():
        height = 3.6 + 0.16 * legend_lines(len(curves))
        figure = Figure(figsize=(4.6, height), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
        _scale(upper, [row.relative_norm for own in curves.values() for row in own])
        for index, (other, own) in enumerate(curves.items()):
            _draw(upper, places, own, [100 * row.relative_norm for row in own], index, other)
            _draw(lower, places, own, [100 * row.sign_agreement for row in own], index)
        upper.set_ylabel("Distance, %")
        if upper.get_yscale() == "linear":
            upper.set_ylim(bottom=0)
        lower.set(ylabel="Same sign, %", xlabel="Layer")
        lower.yaxis.set_major_locator(MaxNLocator(4))
        _mark_layers(lower, places)
        figure.legend(loc="outside lower center", ncols=legend_columns(len(curves)))
        caption = f"{model}: distance over the layers"
        text = "; ".join(f"against {other}: {_in_words(own)}" for other, own in curves.items())
        return make_chart(figure, slug("distances", model), caption, f"{caption}. {text}.")


def _draw(
    axes: Axes,
    places: Mapping[str, float],
    rows: Rows,
    values: Sequence[float],
    index: int,
    name: str = "",
) -> None:
    """Draw layers as a line; tensors outside them as points of their own."""
    looks: dict[str, Any] = {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[turn(index) % len(MARKERS)],
        "markersize": 4.0 if len(places) < _MANY_LAYERS else 2.5,
        "clip_on": False,  # a marker at 0 or 100 is shown whole
    }
    style = LINES[turn(index) % len(LINES)]
    lowest = 0.0 if axes.get_yscale() == "log" else -math.inf  # equal tensors have no place there
    for inside in (True, False):
        points = [
            (places[row.layer], value)
            for row, value in zip(rows, values, strict=True)
            if _is_layer(row.layer) is inside and lowest < value < math.inf
        ]
        if points:
            line = style if inside else ""
            axes.plot(*zip(*points, strict=True), linestyle=line, linewidth=1.2, **looks)
    if name:
        legend = {**looks, "clip_on": True, "linestyle": style, "label": short_name(name, 36)}
        axes.plot([], [], linewidth=1.2, **legend)
    axes.grid(visible=True, axis="y", color=INK, alpha=0.15, linewidth=0.5)


def _scale(axes: Axes, values: Sequence[float]) -> None:
    """Take a logarithmic axis for distances of several orders of magnitude."""
    shown = [value for value in values if 0 < value < math.inf]
    if shown and max(shown) > _WIDE * min(shown):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _places(labels: Iterable[str]) -> dict[str, float]:
    """Place layers side by side, and what is outside of them so far away that names have room."""
    labels = list(labels)
    num_layers = sum(map(_is_layer, labels))
    places: dict[str, float] = {}
    place = 0.0
    for before, label in zip(["", *labels], labels, strict=False):
        both_inside = _is_layer(before) and _is_layer(label)
        place += 1.0 if both_inside else max(1.0, num_layers / 9)
        places[label] = place
    return places


def _mark_layers(axes: Axes, places: Mapping[str, float]) -> None:
    """Number the layers, not more than fit, and name the tensors before and after them."""
    layers = [label for label in places if _is_layer(label)]
    step = -(-len(layers) // 12) or 1
    shown = {*layers[::step], *(label for label in places if not _is_layer(label))}
    ticks = {place: _tick(label) for label, place in places.items() if label in shown}
    axes.set_xticks(list(ticks), list(ticks.values()))


def _by_other(rows: Rows) -> dict[str, list[LayerDistance]]:
    found: dict[str, list[LayerDistance]] = {}
    for row in rows:
        found.setdefault(row.other, []).append(row)
    return found


def _is_layer(label: str) -> bool:
    return label.rpartition(".")[2].isdigit()


def _shown(label: str) -> str:
    """A name of Transformers without what is the same in all."""
    return label.removeprefix("model.").removesuffix(".weight").replace("layers.", "layer ")


def _tick(label: str) -> str:
    if _is_layer(label):
        return label.rpartition(".")[2]
    return next((word for part, word in _TICKS.items() if part in label), _shown(label))


def _cells(row: LayerDistance) -> tuple[Cell, Cell, Cell]:
    return _distance(row), number_cell(row.cosine, 6), number_cell(100 * row.sign_agreement, 2)


def _distance(row: LayerDistance | None) -> Cell:
    return number_cell(None if row is None else 100 * row.relative_norm, 3)


def _in_words(rows: Rows) -> str:
    parts = [f"{_shown(row.layer)} {100 * row.relative_norm:.3g} %" for row in rows]
    return ", ".join(parts)
