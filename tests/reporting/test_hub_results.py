from __future__ import annotations

import pytest
from huggingface_hub.repocard_data import model_index_to_eval_results

from biomistral.records import Task
from biomistral.reporting.hub_results import eval_results, hub_dataset, model_index
from biomistral.reporting.results import index_results


@pytest.fixture
def results(make_score):
    tasks = [
        Task("mmlu_anatomy", "Anatomy", "medical", "published", "MIT"),
        Task("medmcqa", "MedMCQA", "medical", "published", "MIT"),
        Task("rivers", "Rivers", "medical", "invented", "CC0"),
    ]
    scores = [
        make_score(model, task, value, language=language, metric=metric)
        for model, value in (("m", 0.5), ("other", 0.7))
        for task in ("mmlu_anatomy", "medmcqa", "rivers")
        for language in ("en", "fr")
        for metric in ("accuracy", "ece")
    ]
    return index_results(scores, tasks, ["m", "other"])


def test_the_index_has_each_task_and_language_and_is_read_by_the_hubs_library(results):
    name, entries = model_index_to_eval_results(model_index(results, "m"))
    assert name == "m"
    found = [(e.dataset_type, e.dataset_config, e.metric_value) for e in entries]
    assert found == [
        (dataset, language, 0.5)
        for language in ("en", "fr")
        for dataset in ("cais/mmlu", "openlifescienceai/medmcqa", "rivers")
    ]
    assert entries[0].metric_args["low_95"] == 0.45
    assert entries[0].dataset_args == {"num_few_shot": 3, "scoring": "letter"}


def test_results_for_leaderboards_are_of_english_tasks_of_the_hub(results):
    assert eval_results(results, "other", "2026-01-31") == [
        {
            "dataset": {"id": dataset, "task_id": task},
            "value": 70.0,
            "date": "2026-01-31",
            "notes": "accuracy in %; English, letter scoring, 3-shot; 100 questions; "
            "95 % interval 65.0 to 75.0",
        }
        for dataset, task in (("cais/mmlu", "anatomy"), ("openlifescienceai/medmcqa", "default"))
    ]


def test_a_model_that_was_not_measured_has_neither(results):
    assert model_index(results, "gone") == []
    assert eval_results(results, "gone", None) == []


def test_five_options_are_another_task_than_four():
    assert hub_dataset("medqa")[0] == "GBaker/MedQA-USMLE-4-options"
    assert hub_dataset("medqa_5_options") == ("", "")
