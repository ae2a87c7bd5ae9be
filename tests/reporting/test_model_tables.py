from __future__ import annotations

from dataclasses import replace

import pytest

from biomistral.records import Comparison
from biomistral.reporting.model_tables import (
    abstaining_table,
    better_of,
    calibrated_table,
    in_setting,
    matrix_table,
    pairs_table,
    positions_table,
)
from biomistral.reporting.render import table_csv, table_markdown
from biomistral.reporting.results import Setting, index_results

SETTING = Setting("en", "letter", 3)
PAIR = Comparison(
    *("a", "b", "heart", "medical", "en", "letter", 3),
    *(0.05, 0.02, 0.08, 0.0004, 0.012, 30, 10, 0.002, 0.01, 3.0, 0.25, 200, 3),
)
AVERAGE = replace(
    PAIR, task="average", p_mcnemar=None, p_mcnemar_holm=None, odds_ratio=None, cohens_g=None
)


@pytest.fixture
def results(make_score, tasks):
    values = {
        "accuracy": 0.5,
        "temperature": 2.5,
        **{f"ece{suffix}": 0.2 for suffix in ("", "_temperature", "_platt")},
        "brier": 0.7,
        "auroc": 0.65,
        "accuracy_at_50": 0.625,
        "risk_coverage_area": 0.4,
        "position_bias": 0.1,
        "chosen_A": 0.75,
        "chosen_B": 0.25,
        "right_A": 0.5,
        "right_B": 0.5,
    }
    scores = [make_score("m", "average", v, metric=m, low=None) for m, v in values.items()]
    scores += [make_score("m", task, 0.5) for task in ("anatomy", "heart")]
    scores += [make_score("random choice", task, 0.25) for task in ("anatomy", "heart", "average")]
    return index_results(scores, tasks[:2], [])


def test_numbers_before_and_after_calibrating_stand_side_by_side(results):
    table = calibrated_table(results, "medical", SETTING)
    texts = [cell.text for cell in table.rows[0].cells]
    assert texts[:4] == ["2.50", "20.0", "20.0", "20.0"]
    assert texts[4:6] == ["0.700", "–"]  # Brier after calibrating was not measured
    assert len(table.columns) == 10


def test_abstaining_shows_models_and_baselines(results):
    table = abstaining_table(results, "medical", SETTING)
    assert [row.label for row in table.rows] == ["m", "random choice"]
    assert [c.text for c in table.rows[0].cells] == ["50.0", "–", "62.5", "0.400", "0.650"]


def test_places_chosen_stand_above_those_that_are_right(results):
    table = positions_table(results, "medical", SETTING)
    assert [[cell.text for cell in row.cells] for row in table.rows] == [
        ["0.100", "75.0", "25.0"],
        ["–", "50.0", "50.0"],
    ]
    assert table.rows[-1].label == "right answers"


def test_what_was_not_measured_makes_no_table(make_score, tasks):
    results = index_results([make_score("m", "average", 0.5)], tasks[:2], [])
    for make in (calibrated_table, abstaining_table, positions_table):
        assert not make(results, "medical", SETTING).rows


def test_a_pair_is_printed_with_tests_and_effect():
    table = pairs_table([PAIR, AVERAGE], "T", "t", {"heart": "Heart"})
    line = table_markdown(table).splitlines()[2]
    assert line == (
        "| a | b | Heart | +5.0 | +2.0 to +8.0 | \\< 0.001 | 0.012 | 0.002 | 0.010 | 30 | 10 | 3.00 "
        "| +0.25 | a |"
    )
    assert table_csv(table).splitlines()[2].endswith(",5,+2.0 to +8.0,0.0004,0.012,,,,,,,a")


def test_averages_alone_have_no_columns_of_mcnemar():
    table = pairs_table([AVERAGE], "T", "t", {})
    assert "p, McNemar" not in [column.title for column in table.columns]
    assert all(len(row.cells) == len(table.columns) for row in table.rows)


def test_only_what_is_shown_is_called_better():
    assert better_of(PAIR) == "a"
    assert better_of(replace(PAIR, p_mcnemar_holm=0.06)) == ""
    assert better_of(replace(PAIR, first_only=10, second_only=30)) == "b"
    assert better_of(AVERAGE) == "a"
    assert better_of(replace(AVERAGE, difference=-0.05)) == "b"


def test_settings_and_groups_are_kept_apart_and_averages_come_first(results):
    first = replace(PAIR, task="anatomy")
    rows = [PAIR, first, replace(PAIR, shots=0), replace(PAIR, group="general"), AVERAGE]
    assert in_setting(rows, results, "medical", SETTING) == [AVERAGE, first, PAIR]


def test_the_matrix_is_its_own_mirror_and_stars_what_is_not_chance() -> None:
    unsure = replace(
        AVERAGE, second="c", difference=-0.01, low=-0.03, high=0.01, p_bootstrap_holm=0.4
    )
    table = matrix_table([AVERAGE, unsure], "Differences", "matrix", ["c", "b", "a", "unseen"])
    assert [row.label for row in table.rows] == ["c", "b", "a"]
    texts = {(row.label, column.title): cell.text for row in table.rows
             for column, cell in zip(table.columns, row.cells, strict=True)}  # fmt: skip
    assert (texts["a", "b"], texts["b", "a"]) == ("+5.0*", "\N{MINUS SIGN}5.0*")
    assert (texts["a", "c"], texts["c", "a"]) == ("\N{MINUS SIGN}1.0", "+1.0")
    assert texts["b", "c"] == texts["a", "a"] == "–"  # not tested; itself
    (cell,) = [row.cells[1] for row in table.rows if row.label == "a"]
    assert (cell.low, cell.high) == (2.0, 8.0)
