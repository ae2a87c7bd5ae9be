"""Results of a model in the two forms that the Hugging Face hub reads.

    model-index             in the front matter of the card: every task, language and number of shots
    .eval_results/*.yaml    for tasks whose data set is on the hub: what its leaderboards collect

Pure: from results to values for YAML.
Formats: https://huggingface.co/docs/hub/model-cards, https://huggingface.co/docs/hub/eval-results
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from biomistral.records import Score, Task
from biomistral.reporting.results import Results, Setting
from biomistral.reporting.score_tables import ACCURACY, describe

# Task -> data set of the hub and task in it. Only those whose test questions are the ones asked.
_HUB_DATASETS = {
    "medqa": ("GBaker/MedQA-USMLE-4-options", "default"),
    "medmcqa": ("openlifescienceai/medmcqa", "default"),
    "pubmedqa": ("qiaojin/PubMedQA", "pqa_labeled"),
}
_MMLU = "cais/mmlu"
_ENGLISH = "en"


def model_index(results: Results, model: str) -> list[dict[str, Any]]:
    """Return the key ``model-index`` of a card; empty if the model was not measured."""
    from huggingface_hub import EvalResult
    from huggingface_hub.repocard_data import eval_results_to_model_index

    found = [
        EvalResult(
            task_type="question-answering",
            task_name=describe(setting),
            dataset_type=hub_dataset(task.name)[0] or task.name,
            dataset_name=task.title,
            dataset_config=setting.language,
            dataset_split="test",
            dataset_args={"num_few_shot": setting.shots, "scoring": setting.scoring},
            metric_type=ACCURACY,
            metric_name="accuracy",
            metric_value=round(score.value, 4),
            metric_args=_doubt(score),
        )
        for setting, task, score in _accuracies(results, model)
    ]
    return eval_results_to_model_index(model, found) if found else []


def eval_results(results: Results, model: str, date: str | None) -> list[dict[str, Any]]:
    """Return the entries of ``.eval_results``: tasks in English whose data set is on the hub.

    One entry for each task, in the first setting it was asked in; ``date`` is YYYY-MM-DD.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    entries: dict[tuple[str, str], EvalResultEntry] = {}
    for setting, task, score in _accuracies(results, model):
        dataset, part = hub_dataset(task.name)
        if dataset and setting.language == _ENGLISH:
            notes = f"accuracy in %; {describe(setting)}; {score.num_questions:,} questions"
            if score.low is not None and score.high is not None:
                notes += f"; 95 % interval {100 * score.low:.1f} to {100 * score.high:.1f}"
            entry = EvalResultEntry(
                dataset, part, round(100 * score.value, 2), date=date, notes=notes
            )
            entries.setdefault((dataset, part), entry)
    return eval_result_entries_to_yaml(list(entries.values()))


def hub_dataset(task: str) -> tuple[str, str]:
    """Return data set and task in it for a published task; empty texts for others."""
    if task.startswith("mmlu_"):
        return _MMLU, task.removeprefix("mmlu_")
    return _HUB_DATASETS.get(task, ("", ""))


def _accuracies(results: Results, model: str) -> Iterator[tuple[Setting, Task, Score]]:
    settings = dict.fromkeys((*results.main_settings, *results.settings))
    for setting in settings:
        for task in results.tasks:
            if score := results.find(setting, model, task, ACCURACY):
                yield setting, task, score


def _doubt(score: Score) -> dict[str, Any]:
    """Number of questions and seeds, and the interval."""
    known = {"num_questions": score.num_questions, "num_seeds": score.num_seeds}
    if score.low is None or score.high is None:
        return known
    return {**known, "low_95": round(score.low, 4), "high_95": round(score.high, 4)}
