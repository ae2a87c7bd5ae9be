from __future__ import annotations

import pytest

from biomistral.reporting.results import Setting, index_results
from biomistral.reporting.score_tables import (
    accuracy_table,
    calibration_table,
    describe,
    groups_table,
    languages_table,
    model_table,
)
from biomistral.reporting.tables import DASH, Table

EN = Setting("en", "letter", 3)
TRAINED = "tr_ained <b>&|% $x$"


@pytest.fixture
def results(scores, tasks):
    return index_results(scores, tasks, ["base", TRAINED])


def texts(table: Table, label: str) -> list[str]:
    (row,) = (row for row in table.rows if row.label == label)
    return [cell.text for cell in row.cells]


def titles(table: Table) -> list[str]:
    return [column.title for column in table.columns]


def test_accuracy_has_models_as_rows_and_tasks_and_average_as_columns(results) -> None:
    table = accuracy_table(results, "medical", EN)
    assert titles(table) == ["Anatomy & more", "Heart", "Average"]
    assert [row.label for row in table.rows] == ["base", TRAINED, "random choice"]
    assert texts(table, "base") == ["50.0", "60.0", "55.0"]
    assert [cell.mark for cell in table.rows[1].cells] == ["best"] * 3


def test_a_group_of_one_task_has_no_average(results) -> None:
    assert titles(accuracy_table(results, "general", EN)) == ["World"]


def test_a_model_without_a_result_has_a_dash(make_score, tasks) -> None:
    scores = [make_score("a", "heart", 0.5), make_score("a", "anatomy", 0.5)]
    scores += [make_score("b", "heart", 0.5)]
    table = accuracy_table(index_results(scores, tasks, []), "medical", EN)
    assert texts(table, "b") == [DASH, "50.0", DASH]


def test_changes_are_against_the_model_it_was_made_from(results) -> None:
    table = groups_table(results, EN, {TRAINED: "base"})
    assert texts(table, TRAINED) == ["57.0", "68.0", "base", "+2.0", "\N{MINUS SIGN}2.0"]
    assert texts(table, "base")[2:] == [DASH, DASH, DASH]


def test_the_mean_over_languages_is_unweighted(results) -> None:
    table = languages_table(results, "medical", "letter", 3)
    assert titles(table) == ["English", "Arabic", "Mean"]
    assert texts(table, "base") == ["55.0", "35.0", "45.0"]


def test_no_mean_is_given_where_a_language_is_absent(make_score, tasks) -> None:
    scores = [
        make_score(model, task, 0.5, language=language)
        for model, language in (("a", "en"), ("a", "fr"), ("b", "en"))
        for task in ("heart", "average")
    ]
    table = languages_table(index_results(scores, tasks, []), "medical", "letter", 3)
    assert texts(table, "b") == ["50.0", DASH, DASH]


def test_languages_with_different_tasks_are_said_not_to_compare(make_score, tasks) -> None:
    scores = [make_score("a", "heart", 0.5), make_score("a", "anatomy", 0.5, language="fr")]
    table = languages_table(index_results(scores, tasks, []), "medical", "letter", 3)
    assert "Not comparable across columns" in table.note


def test_calibration_shows_every_other_metric_known_ones_first(results) -> None:
    table = calibration_table(results, "medical", EN)
    assert titles(table) == ["ECE, %", "odd one"]
    assert texts(table, "base") == ["10.0", "2.500"]
    assert "random choice" not in [row.label for row in table.rows]


def test_calibration_of_cloze_is_not_marked_nor_called_unnormalised(make_score, tasks) -> None:
    scores = [
        make_score(model, task, value, metric=metric, scoring=scoring)
        for model, value in (("a", 0.1), ("b", 0.2))
        for task in ("heart", "average")
        for metric in ("accuracy", "ece_published")
        for scoring in ("letter", "cloze")
    ]
    results = index_results(scores, tasks, [])
    cloze = calibration_table(results, "medical", Setting("en", "cloze", 3))
    letter = calibration_table(results, "medical", EN)
    assert letter.is_marked
    assert not cloze.is_marked
    assert "letters not renormalised" in letter.note
    assert "renormalised" not in cloze.note + cloze.columns[0].note


def test_a_models_own_table_has_tasks_as_rows(results) -> None:
    table = model_table(results, TRAINED, "letter", 3)
    assert [row.label for row in table.rows] == [
        "Anatomy & more",
        "Heart",
        "Medical average",
        "World",
    ]
    assert texts(table, "World") == ["68.0", DASH]


def test_a_setting_in_words() -> None:
    assert describe(EN) == "English, letter scoring, 3-shot"
