from __future__ import annotations

import pytest

from biomistral.reporting.tables import (
    DASH,
    Cell,
    Column,
    Row,
    Table,
    count_cell,
    metric_of,
    number_cell,
    score_cell,
    slug,
    unique_names,
    with_marks,
)


def one_column(values, better="higher", kinds=None):
    kinds = kinds or ["model"] * len(values)
    rows = [
        Row(str(i), (number_cell(value),), kind)
        for i, (value, kind) in enumerate(zip(values, kinds, strict=True))
    ]
    return Table("id", "title", "Model", (Column("c", better),), tuple(rows))


def marks(table: Table) -> list[str]:
    return [row.cells[0].mark for row in with_marks(table).rows]


def test_best_and_second_are_marked() -> None:
    assert marks(one_column([1.0, 3.0, 2.0])) == ["", "best", "second"]


def test_where_lower_is_better_the_lowest_is_best() -> None:
    assert marks(one_column([1.0, 3.0, 2.0], better="lower")) == ["best", "", "second"]


def test_numbers_that_print_the_same_share_a_mark() -> None:
    assert marks(one_column([3.01, 3.04, 2.0, 2.04, 1.0])) == [
        "best",
        "best",
        "second",
        "second",
        "",
    ]


def test_baselines_are_never_marked_and_take_no_part() -> None:
    kinds = ["model", "ensemble", "baseline"]
    assert marks(one_column([1.0, 2.0, 9.0], kinds=kinds)) == ["second", "best", ""]


def test_absent_results_take_no_part() -> None:
    assert marks(one_column([None, 2.0, 1.0])) == ["", "best", "second"]


@pytest.mark.parametrize("values", [[1.0], [1.0, None], [2.0, 2.0]])
def test_nothing_is_marked_where_nothing_can_be_told_apart(values) -> None:
    assert set(marks(one_column(values))) == {""}


def test_a_column_without_a_better_direction_has_no_marks() -> None:
    assert marks(one_column([1.0, 2.0], better=None)) == ["", ""]


def test_an_absent_score_is_a_dash_and_never_zero() -> None:
    assert score_cell(None) == Cell(DASH, None)
    assert count_cell(None).text == DASH
    assert number_cell(float("nan")).text == DASH


def test_a_score_is_printed_in_percent_with_interval_and_deviation(make_score) -> None:
    score = make_score("m", "anatomy", 0.5, low=0.456, high=0.5444)
    cell = score_cell(score, make_score("m", "anatomy", 0.0123, metric="accuracy_deviation"))
    assert (cell.text, cell.spread) == ("50.0", "± 1.2")
    assert cell.hover == "95 % interval 45.6 to 54.4; 100 questions, 3 seeds"


def test_the_deviation_of_a_single_seed_is_not_printed(make_score) -> None:
    deviation = make_score("m", "anatomy", 0.0, metric="accuracy_deviation", num_seeds=1)
    assert score_cell(make_score("m", "anatomy", 0.5), deviation).spread == ""


def test_a_metric_nobody_told_us_about_is_printed_plainly_and_never_marked() -> None:
    metric = metric_of("some_new_metric")
    assert (metric.label, metric.better, metric.percent) == ("some new metric", None, False)


@pytest.mark.parametrize(
    ("value", "text"), [(1.25, "+1.2"), (-1.26, "\N{MINUS SIGN}1.3"), (0.04, "0.0"), (-0.04, "0.0")]
)
def test_changes_have_a_true_minus_and_nothing_has_no_sign(value: float, text: str) -> None:
    assert number_cell(value, signed=True).text == text


def test_slugs_are_safe_everywhere() -> None:
    assert slug("a b/c", "Ünï", "<x>") == "a-b-c-n-x"


def test_file_names_are_distinct_even_where_case_is_ignored() -> None:
    names = unique_names(["a/b", "a:b", "A_b", "../x", "ok-1.0"])
    assert list(names.values()) == ["a_b", "a_b-2", "A_b-3", "_x", "ok-1.0"]
