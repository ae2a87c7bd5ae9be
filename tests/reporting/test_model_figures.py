from __future__ import annotations

from dataclasses import replace

from biomistral.records import Comparison, CoveragePoint, LanguageGap
from biomistral.reporting.model_figures import coverage_chart, difference_chart, gap_chart

POINTS = [
    CoveragePoint("m", "average", "medical", "en", "letter", 3, n / 20, 0.9 - n / 50)
    for n in range(1, 21)
]
PAIR = Comparison(
    *("a <b>", "c", "average", "medical", "en", "letter", 3),
    *(0.05, 0.02, 0.08, 0.0004, 0.012, 0, 0, None, None, None, None, 200, 3),
)


def test_a_coverage_chart_says_its_points():
    chart = coverage_chart("x", "Caption", {"m": POINTS}, 0.25)
    assert "m 80.0 % of the surest 25 %" in chart.text
    assert "50.0 % of the surest 100 %" in chart.text
    assert chart.svg == coverage_chart("x", "Caption", {"m": POINTS}, 0.25).svg


def test_a_difference_chart_says_its_pairs_and_escapes_names():
    chart = difference_chart("x", "Caption", [PAIR])
    assert "a <b> less c: +5.0 (+2.0 to +8.0)" in chart.text
    assert "<b>" not in chart.svg


def test_a_gap_chart_has_a_block_for_each_language_and_a_place_for_each_model():
    gap = LanguageGap("m", "average", "medical", "fr", "letter", 3, -0.1, -0.2, 0.0, 0.01, 9, 1)
    gaps = [replace(gap, model=m, language=code) for code in ("fr", "ar") for m in ("m", "n")]
    chart = gap_chart("x", "Caption", gaps)
    [axes] = chart.figure.axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["French", "Arabic"]
    places = [y for line in axes.lines if line.get_marker() in "os" for y in line.get_ydata()]
    assert len(set(places)) == 4
    assert "n in Arabic: -10.0 (-20.0 to +0.0)" in chart.text
