from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from biomistral.errors import InputError
from biomistral.records import Score, Task, read_records
from biomistral.reporting.results import index_results
from biomistral.reporting.sample_files import read_samples


@pytest.fixture(scope="module")
def results(run_folders):
    scores = read_records(run_folders["scores"] / "scores.parquet", Score)
    tasks = list(read_records(run_folders["questions"] / "tasks.parquet", Task))
    return index_results(scores, tasks, list(run_folders["predictions"]))


def test_samples_have_the_answers_of_all_models(run_folders, results) -> None:
    samples = read_samples(
        run_folders["questions"], run_folders["predictions"], results, results.tasks
    )
    assert len(samples) == 6
    assert all(len(sample.answers) == 2 for sample in samples)


def test_only_questions_of_the_given_tasks_are_drawn(run_folders, results) -> None:
    shown = [task for task in results.tasks if task.name == "heart"]
    samples = read_samples(run_folders["questions"], run_folders["predictions"], results, shown)
    assert {sample.question.task for sample in samples} == {"heart"}


def test_predictions_of_an_older_version_are_read(run_folders, results, tmp_path) -> None:
    (model,) = list(run_folders["predictions"])[:1]
    table = pq.read_table(run_folders["predictions"][model] / "predictions.parquet")
    pq.write_table(table.drop_columns(["top", "order"]), tmp_path / "predictions.parquet")
    samples = read_samples(run_folders["questions"], {model: tmp_path}, results, results.tasks)
    assert [answer.model for answer in samples[0].answers] == [model]


def test_a_file_of_something_else_is_named(run_folders, results, tmp_path) -> None:
    (tmp_path / "predictions.parquet").write_text("no Parquet")
    with pytest.raises(InputError, match=r"predictions\.parquet: cannot be read"):
        read_samples(run_folders["questions"], {"m": tmp_path}, results, results.tasks)
