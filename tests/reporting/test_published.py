from __future__ import annotations

import pytest

from biomistral.benchmark.tasks import TASKS
from biomistral.records import Task
from biomistral.reporting import published
from biomistral.reporting.results import index_results


def results_of(make_score, names):
    tasks = [Task(name, name, "medical", "s", "l") for name in names]
    return index_results([make_score("base", name, 0.5) for name in names], tasks, ["base"])


def test_every_task_is_one_of_the_benchmark_and_has_a_figure() -> None:
    assert set(published.TASKS) <= set(TASKS)
    for figures in published.FINE_TUNED.values():
        assert len(figures.split()) == len(published.TASKS) + 1


@pytest.mark.parametrize("model", published.FINE_TUNED)
def test_averages_are_those_of_their_rows(model: str) -> None:
    *numbers, average = map(float, published.FINE_TUNED[model].split())
    assert sum(numbers) / len(numbers) == pytest.approx(average, abs=0.15)


def test_only_tasks_of_the_run_are_shown_and_an_average_only_of_all(make_score) -> None:
    few = published.published_section(results_of(make_score, ["medqa", "pubmedqa"]))
    (table,) = few.tables
    assert [column.title for column in table.columns] == ["MedQA", "PubMedQA", "Average"]
    assert table.rows[0].cells[0].text == "50.6"
    assert table.rows[0].cells[-1].value is None
    (table,) = published.published_section(results_of(make_score, list(published.TASKS))).tables
    assert table.rows[0].cells[-1].text == "57.3"


def test_a_run_on_other_tasks_shows_no_published_figures(make_score) -> None:
    assert published.published_section(results_of(make_score, ["herbs"])).is_empty
