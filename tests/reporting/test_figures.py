from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree as ET

from biomistral.records import ReliabilityBin
from biomistral.reporting.charts import Chart
from biomistral.reporting.figures import (
    accuracy_chart,
    held_out_chart,
    loss_chart,
    reliability_chart,
)
from biomistral.reporting.run_tables import LogLine

LOG = [LogLine(i, 10 * i, 3.0 / i, 0.1, {"pmc": 2.0} if i == 900 else {}) for i in range(1, 1001)]
BINS = [
    ReliabilityBin("m", "average", "medical", "en", "letter", low, low + 0.5, n, low + 0.2, 0.4)
    for low, n in ((0.0, 0), (0.5, 9))
]


def charts(make_score) -> list[Chart]:
    scores = {'a "<&> $x$': make_score("a", "heart", 0.5), "b": None}
    made = [
        accuracy_chart("bars", "Heart", scores, 0.25),
        reliability_chart("rel", "m", BINS),
        loss_chart("loss", "Loss", {"m": LOG}),
        held_out_chart("held", "Held out", {"m": LOG}),
    ]
    return [chart for chart in made if chart]


def test_the_same_numbers_give_the_same_bytes(make_score) -> None:
    assert charts(make_score) == charts(make_score)


def test_a_figure_is_well_formed_and_says_in_words_what_it_shows(make_score) -> None:
    for chart in charts(make_score):
        root = ET.fromstring(chart.svg)
        assert root.get("role") == "img"
        assert root.get("aria-label") == chart.text
    assert (
        "50.0 % (interval 45.0 to 55.0); b not measured; chance 25.0 %"
        in charts(make_score)[0].text
    )


def test_a_figure_fetches_nothing_and_refers_to_itself_only(make_score) -> None:
    for chart in charts(make_score):
        assert "http" not in chart.svg
        assert "<style" not in chart.svg
        ids = set(re.findall(r' id="([^"]+)"', chart.svg))
        assert ids == set(re.findall(r'(?:href="#|url\(#)([^")]+)', chart.svg))
        assert all(id_.startswith(f"{chart.id}-") for id_ in ids)


def test_ink_takes_the_colour_of_the_page(make_score) -> None:
    for chart in charts(make_score):
        assert "currentColor" in chart.svg
        assert "#010203" not in chart.svg
        assert "#000000" not in chart.svg


def test_an_absent_result_is_drawn_as_a_dash(make_score) -> None:
    root = ET.fromstring(charts(make_score)[0].svg)
    assert "–" in "".join(root.itertext())


def test_empty_bins_are_left_out(make_score) -> None:
    assert charts(make_score)[1].text.count("confidence") == 1


def test_markers_at_the_edge_are_not_clipped() -> None:
    """A marker's group in the SVG has no clip path; the grid's lines do."""
    edge = [ReliabilityBin("m", "average", "medical", "en", "letter", 0.5, 1.0, 9, 1.0, 1.0)]
    svg = reliability_chart("rel", "m", edge).svg
    assert "<use" in svg
    markers = re.findall(r"<g[^>]*>\s*<use [^>]*fill: #0072b2|<g[^>]*>\s*<use [^>]*#0072b2", svg)
    assert all("clip-path" not in marker for marker in markers)
    assert markers


def test_a_result_at_the_edge_without_width_has_no_whisker(make_score) -> None:
    def drawn(low: float | None) -> str:
        score = make_score("a", "heart", 1.0, low=low, high=low)
        chart = accuracy_chart("bars", "Heart", {"a": score}, None)
        return chart.svg.removeprefix(chart.svg[: chart.svg.index(">")])

    assert drawn(1.0) == drawn(None)


def test_models_of_one_colour_look_different() -> None:
    first, seventh = (reliability_chart("rel", "m", BINS, index) for index in (0, 6))
    assert "#0072b2" in first.svg
    assert "#0072b2" in seventh.svg
    assert first.svg != seventh.svg


def test_a_run_without_losses_has_no_curve() -> None:
    assert loss_chart("loss", "Loss", {"m": [LogLine(1, 1, None, None, {})]}) is None
    assert held_out_chart("held", "Held out", {}) is None


def test_the_more_answers_a_bin_has_the_larger_is_its_point() -> None:
    bins = [replace(BINS[1], low=0.5 * i, mean_confidence=0.5 * i, num_answers=n)
            for i, n in enumerate((1, 400))]  # fmt: skip
    upper, _ = reliability_chart("rel", "m", bins).figure.axes
    sizes = [line.get_markersize() for line in upper.lines if line.get_marker() == "o"]
    assert sizes == [2.5 + 3.5 / 20, 6.0]


def test_before_and_after_scaling_are_told_apart_in_a_legend() -> None:
    def legends(after: list[ReliabilityBin]) -> list[str]:
        found = reliability_chart("rel", "m", BINS, 0, after).figure.legends
        return [text.get_text() for legend in found for text in legend.get_texts()]

    assert legends([]) == []
    assert legends(BINS) == ["as it is", "temperature-scaled"]


def test_a_short_run_beside_a_long_one_is_no_stroke() -> None:
    """From ten times the length on, the axis of tokens is logarithmic."""

    def scale(factor: int) -> str:
        short = [LogLine(1, 0, 2.0, None, {}), LogLine(2, 100, 1.0, None, {})]
        long = [LogLine(1, 0, 2.0, None, {}), LogLine(2, 100 * factor, 1.0, None, {})]
        chart = loss_chart("loss", "Loss", {"short": short, "long": long})
        assert chart is not None
        return chart.figure.axes[0].get_xscale()

    assert scale(9) == "linear"
    assert scale(10) == "symlog"


def test_a_long_curve_is_thinned() -> None:
    chart = loss_chart("loss", "Loss", {"m": LOG * 10})
    assert chart is not None
    assert len(chart.svg) < 40_000
