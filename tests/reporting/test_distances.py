from __future__ import annotations

import math
from dataclasses import replace

import pytest

from biomistral.records import LayerDistance
from biomistral.reporting.distances import distances_section, layers_table, totals_table

PLACES = [
    ("all", "all"),
    ("model.embed_tokens.weight", "all"),
    *((f"model.layers.{index}", "all") for index in range(30)),
    ("model.norm.weight", "all"),
    *((f"model.layers.{index}", "mlp") for index in range(30)),
]


def _rows(other: str, distance: float = 0.5) -> list[LayerDistance]:
    return [
        LayerDistance("merged", other, layer, kind, 10, distance, 0.25, 0.75)
        for layer, kind in PLACES
    ]


@pytest.fixture(scope="module")
def rows() -> list[LayerDistance]:
    return [*_rows("base"), *_rows("medical", 0.001)]


def test_a_model_has_one_line_for_each_that_it_was_made_from(rows) -> None:
    table = totals_table({"merged": rows, "other": []})
    lines = [(row.label, *(cell.text for cell in row.cells)) for row in table.rows]
    assert lines == [
        ("merged", "base", "50.000", "0.250000", "75.00"),
        ("merged", "medical", "0.100", "0.250000", "75.00"),
    ]


def test_layers_are_listed_in_order_with_the_kinds_that_they_have(rows) -> None:
    table = layers_table("merged", "base", rows[: len(PLACES)])
    labels = [row.label for row in table.rows]
    assert labels[:2] == ["embed_tokens", "layer 0"]
    assert labels[-2:] == ["layer 29", "norm"]
    assert [cell.text for cell in table.rows[1].cells[:4]] == ["50.000", "–", "50.000", "–"]
    assert [cell.text for cell in table.rows[0].cells[:4]] == ["50.000", "–", "–", "–"]


def test_each_model_has_a_figure_with_a_line_for_each_other(rows) -> None:
    section = distances_section({"merged": rows})
    [chart] = section.charts
    assert "against base: embed_tokens 50 %, layer 0 50 %" in chart.text
    upper, lower = chart.figure.axes
    assert upper.get_yscale() == "log"  # 50 % and 0.1 %
    assert distances_section({"merged": _rows("base")}).charts[0].figure.axes[0].get_yscale() == (
        "linear"
    )
    ticks = [tick.get_text() for tick in lower.get_xticklabels()]
    assert ticks == ["emb.", *map(str, range(0, 30, 3)), "norm"]
    assert len(section.folded) == 2
    places = lower.get_xticks()
    assert places[1] - places[0] == pytest.approx(30 / 9)  # room for a name
    assert places[-1] - (places[-2] + 2) == pytest.approx(30 / 9)


@pytest.mark.filterwarnings("error")  # of a layout that found no room
def test_equal_tensors_have_no_place_on_a_logarithmic_axis(rows) -> None:
    equal = [replace(row, relative_norm=0.0) if "embed" in row.layer else row for row in rows]
    [chart] = distances_section({"merged": equal}).charts
    upper = chart.figure.axes[0]
    assert upper.get_yscale() == "log"
    assert min(y for line in upper.lines for y in line.get_ydata()) > 0


def test_an_infinite_distance_is_a_dash_and_not_drawn() -> None:
    section = distances_section({"merged": _rows("base", math.inf)})
    assert section.tables[0].rows[0].cells[1].text == "–"
    assert len(section.charts) == 1


def test_what_cannot_be_compared_is_said(rows) -> None:
    section = distances_section({"merged": rows}, ["merged and other: have no tensor in common"])
    assert section.text.endswith("merged and other: have no tensor in common.")


def test_a_run_without_distances_has_no_section() -> None:
    assert distances_section({}).is_empty
    assert distances_section({"merged": []}).is_empty
