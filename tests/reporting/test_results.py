from __future__ import annotations

import pytest

from biomistral.records import Task
from biomistral.reporting.document import Material, compose
from biomistral.reporting.results import Setting, average_of, index_results

EN = Setting("en", "letter", 3)


@pytest.fixture
def results(scores, tasks):
    return index_results(scores, tasks, ["base"])


def test_models_stand_in_the_given_order_and_baselines_last(make_score, tasks) -> None:
    scores = [make_score(m, "heart", 0.5) for m in ("random choice", "new", "b", "a")]
    scores.append(make_score("both", "heart", 0.5, model_kind="ensemble"))
    found = index_results(scores, tasks, ["a", "b", "never measured"])
    assert found.models == ("a", "b", "new", "both", "random choice")


def test_english_comes_first_then_the_order_of_the_benchmark(results) -> None:
    assert results.languages == ("en", "ar")
    assert results.main_settings == (EN,)


def test_medical_is_the_first_group(make_score) -> None:
    tasks = [Task("x", "X", "general", "", ""), Task("y", "Y", "medical", "", "")]
    assert index_results([], tasks, []).groups == ("medical", "general")


def test_what_was_not_measured_is_none(results, tasks) -> None:
    assert results.find(EN, "nobody", tasks[0], "accuracy") is None


def test_a_task_without_description_is_printed_by_its_name(make_score) -> None:
    found = index_results([make_score("m", "heart", 0.5)], [], [])
    assert [task.title for task in found.tasks] == ["heart"]


def test_the_average_of_a_model_that_lacks_a_task_is_left_out(make_score, tasks) -> None:
    scores = [make_score("whole", t, 0.5) for t in ("anatomy", "heart", "average")]
    scores += [make_score("part", t, 0.9) for t in ("anatomy", "average")]
    found = index_results(scores, tasks, [])
    average = average_of("medical")
    assert found.find(EN, "whole", average, "accuracy") is not None
    assert found.find(EN, "part", average, "accuracy") is None
    assert len(found.measured) == len(scores)  # it stays in the file of all scores


def test_settings_in_which_the_main_group_was_not_asked_come_last_and_make_no_empty_table(
    make_score,
) -> None:
    tasks = [Task("anatomy", "Anatomy", "medical", "", ""), Task("truth", "Truth", "truth", "", "")]
    scores = [
        make_score("m", "truth", 0.5, group="truth", shots=0),
        make_score("m", "anatomy", 0.5, group="medical", shots=3),
    ]
    results = index_results(scores, tasks, ["m"])
    assert [setting.shots for setting in results.main_settings] == [3, 0]
    document = compose("x", Material(results))
    assert all(table.columns and table.rows for table in document.tables)
    assert any(table.title.startswith("Medical tasks") for table in document.tables)
