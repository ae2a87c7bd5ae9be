from __future__ import annotations

from biomistral.records import Comparison, CoveragePoint
from biomistral.reporting.model_figures import coverage_chart, difference_chart

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
