from __future__ import annotations

from dataclasses import replace

import pytest

from biomistral.records import Comparison, CoveragePoint, ReliabilityBin
from biomistral.reporting.model_sections import (
    abstaining_section,
    calibration_section,
    comparison_section,
    positions_section,
)
from biomistral.reporting.results import index_results

PAIR = Comparison(
    *("base", "other", "average", "medical", "en", "letter", 3),
    *(0.05, 0.02, 0.08, 0.0004, 0.012, 0, 0, None, None, None, None, 200, 3),
)


@pytest.fixture
def results(scores, tasks):
    return index_results(scores, tasks, [])


def test_sections_without_material_are_empty(make_score, tasks):
    results = index_results([make_score("m", "average", 0.5)], tasks[:2], [])
    assert calibration_section(results, []).is_empty
    assert abstaining_section(results, []).is_empty
    assert positions_section(results).is_empty
    assert comparison_section(results, []).is_empty


def test_bars_after_calibrating_are_drawn_with_those_before(results):
    before = ReliabilityBin("base", "average", "medical", "en", "letter", 0.5, 1, 9, 0.7, 0.4)
    after = replace(before, calibration="temperature", mean_confidence=0.45)
    [chart] = calibration_section(results, [before, after]).charts
    assert "After calibrating: confidence 0.45: accuracy 0.40 of 9" in chart.text
    section = calibration_section(results, [before])
    assert "After calibrating" not in section.charts[0].text
    assert "dotted" not in section.text


def test_each_main_setting_has_its_coverage_chart(results):
    points = [
        CoveragePoint("base", "average", "medical", language, "letter", 3, n / 20, 0.5)
        for language in ("en", "ar")
        for n in range(1, 21)
    ]
    [chart] = abstaining_section(results, points).charts
    assert "English" in chart.caption


def test_other_languages_and_single_tasks_are_folded(results):
    by_task = replace(PAIR, task="heart", p_mcnemar=0.2, p_mcnemar_holm=0.2)
    arabic = replace(PAIR, language="ar")
    section = comparison_section(results, [by_task, PAIR, arabic])
    assert [len(table.rows) for table in section.tables] == [1]
    assert len(section.folded) == 2
    assert len(section.charts) == 1
    ids = [table.id for table in (*section.tables, *section.folded)]
    assert len(ids) == len(set(ids))


def test_figures_of_differences_have_every_pair(results):
    pairs = [replace(PAIR, second=f"model {n}") for n in range(81)]
    charts = comparison_section(results, pairs).charts
    assert [chart.id for chart in charts] == [
        f"differences-en-letter-3-part-{n}" for n in (1, 2, 3)
    ]
    assert charts[2].caption.endswith(", part 3 of 3")
    for n, row in enumerate(pairs):
        assert f"less {row.second}: " in charts[n // 27].text
    assert len(comparison_section(results, pairs[:40]).charts) == 1


def test_a_model_without_probabilities_is_named_and_not_just_absent(make_score, tasks):
    rows = [make_score("sure", "average", 0.5), make_score("chatty", "average", 0.4)]
    rows += [replace(rows[0], metric="ece", value=0.1)]
    results = index_results(rows, tasks[:2], [])
    wanted = "Not shown: chatty, which answered in words and gave no probabilities."
    assert wanted in calibration_section(results, []).text
    results = index_results([rows[0], rows[2]], tasks[:2], [])
    assert "Not shown" not in calibration_section(results, []).text
