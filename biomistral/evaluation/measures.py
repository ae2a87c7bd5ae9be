"""From answers to rows: every number of a model on a task, its interval, and the macro averages.

Pure: cells go in, ``Score`` and ``ReliabilityBin`` records come out. A macro average is the
unweighted mean over the tasks of a group; its interval comes from resampling the questions of each
task and averaging the tasks of each resample. Knows nothing about files.

Metrics, all fractions or natural logarithms, means over questions and seeds:

    accuracy            share of right answers
    accuracy_deviation  population standard deviation of the accuracy over the seeds
    ece, ece_published  expected calibration error, mean over the seeds
    brier               Brier score, summed over the choices (0 to 2)
    negative_log_likelihood  of the right choice, in nats

Shapes: S seeds, Q questions, R resamples.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

from biomistral.evaluation import metrics
from biomistral.evaluation.columns import Cell, CellKey, Floats
from biomistral.records import ReliabilityBin, Score, Scoring

AVERAGE = "average"
RANDOM_CHOICE = "random choice"
MAJORITY_CHOICE = "majority choice"

Kind = Literal["model", "ensemble", "baseline"]
Cells = Mapping[str, Mapping[CellKey, Cell]]


@dataclass(frozen=True)
class Measures:
    """What is known of one model in one cell, or on average over several."""

    values: dict[str, float]  # by metric
    resampled: dict[str, Floats]  # (R,), of the metrics that get an interval
    accuracies: tuple[float, ...]  # by seed; empty for baselines
    num_questions: int
    num_seeds: int


def scores(
    cells: Cells, groups: Mapping[str, str], *, seed: int, ensembles: Collection[str]
) -> list[Score]:
    """Return all rows: per model its tasks, then its averages; baselines come last.

    ``cells`` must hold the same questions for each model; ``groups`` has the group of each task.
    """
    measured = _measure_all(cells, seed)
    rows: list[Score] = []
    for model, by_key in measured.items():
        kind: Kind = "ensemble" if model in ensembles else "model"
        if model in {RANDOM_CHOICE, MAJORITY_CHOICE}:
            kind = "baseline"
        for key, measures in by_key.items():
            rows += _rows(model, kind, key, groups[key.task], measures)
        for key, group, tasks in _groups(by_key, groups):
            rows += _rows(model, kind, key, group, _average([by_key[task] for task in tasks]))
    return rows


def reliability_bins(cells: Cells, groups: Mapping[str, str]) -> list[ReliabilityBin]:
    """Return the bars of all reliability diagrams, of each task and of each group pooled.

    Confidence is renormalised over the choices; all seeds are pooled.
    """
    rows: list[ReliabilityBin] = []
    for model, by_key in cells.items():
        answers = {key: _confidence_and_right(cell) for key, cell in by_key.items()}
        for key, (confidence, right) in answers.items():
            rows += _bars(model, key, groups[key.task], confidence, right)
        for key, group, tasks in _groups(by_key, groups):
            confidence, right = np.concatenate([answers[task] for task in tasks], axis=1)
            rows += _bars(model, key, group, confidence, right)
    return rows


# --- measuring ------------------------------------------------------------------------------------


def _measure_all(cells: Cells, seed: int) -> dict[str, dict[CellKey, Measures]]:
    """Measure all models and both baselines; a task's resamples are drawn once and shared."""
    measured: dict[str, dict[CellKey, Measures]] = {
        model: {} for model in (*cells, RANDOM_CHOICE, MAJORITY_CHOICE)
    }
    for key, cell in next(iter(cells.values())).items():
        counts = metrics.resample_counts(len(cell.gold), seed, key.task)
        for model, by_key in cells.items():
            measured[model][key] = _measure(key, by_key[key], counts)
        measured[RANDOM_CHOICE][key] = _random_choice(cell)
        measured[MAJORITY_CHOICE][key] = _majority_choice(cell, counts)
    return measured


def _measure(key: CellKey, cell: Cell, counts: Floats) -> Measures:
    per_question = {
        "accuracy": metrics.correct(cell.logprobs, cell.gold),
        "brier": metrics.brier_scores(metrics.renormalised(cell.logprobs), cell.gold),
        "negative_log_likelihood": metrics.negative_log_likelihoods(cell.logprobs, cell.gold),
    }
    over_seeds = np.stack([values.mean(axis=0) for values in per_question.values()], axis=1)
    resampled = metrics.resampled_means(counts, over_seeds)
    accuracies = metrics.accuracies(cell.logprobs, cell.gold)
    letters = key.scoring == "letter"
    return Measures(
        values={
            **dict(zip(per_question, over_seeds.mean(axis=0).tolist(), strict=True)),
            "accuracy_deviation": metrics.deviation(accuracies),
            "ece": statistics.fmean(
                metrics.standard_ece(of_seed, cell.gold) for of_seed in cell.logprobs
            ),
            "ece_published": statistics.fmean(
                metrics.published_ece(of_seed, cell.gold, letters=letters)
                for of_seed in cell.logprobs
            ),
        },
        resampled=dict(zip(per_question, resampled.T, strict=True)),
        accuracies=tuple(accuracies),
        num_questions=len(cell.gold),
        num_seeds=len(cell.seeds),
    )


def _random_choice(cell: Cell) -> Measures:
    """Accuracy to expect from guessing; it has no interval."""
    expected = float((1 / cell.num_choices).mean())
    return Measures({"accuracy": expected}, {}, (), len(cell.gold), len(cell.seeds))


def _majority_choice(cell: Cell, counts: Floats) -> Measures:
    """Accuracy of always naming the place that is most often right among these very questions."""
    most_common = np.bincount(cell.gold).argmax()
    right = (cell.gold == most_common).astype(np.float64)
    resampled = metrics.resampled_means(counts, right[:, None])[:, 0]
    return Measures(
        {"accuracy": float(right.mean())},
        {"accuracy": resampled},
        (),
        len(cell.gold),
        len(cell.seeds),
    )


def _average(tasks: Sequence[Measures]) -> Measures:
    """Unweighted mean over tasks of every metric, resample by resample."""
    first = tasks[0]
    values = {name: statistics.fmean(task.values[name] for task in tasks) for name in first.values}
    accuracies: tuple[float, ...] = ()
    if "accuracy_deviation" in values:
        # The spread of the average, which is less than the average of the spreads.
        accuracies = tuple(
            statistics.fmean(of_seed)
            for of_seed in zip(*(task.accuracies for task in tasks), strict=True)
        )
        values["accuracy_deviation"] = metrics.deviation(list(accuracies))
    return Measures(
        values=values,
        resampled={
            name: np.mean([task.resampled[name] for task in tasks], axis=0)
            for name in first.resampled
        },
        accuracies=accuracies,
        num_questions=sum(task.num_questions for task in tasks),
        num_seeds=first.num_seeds,
    )


# --- rows -----------------------------------------------------------------------------------------


def _groups(
    keys: Collection[CellKey], groups: Mapping[str, str]
) -> Iterator[tuple[CellKey, str, list[CellKey]]]:
    """Yield a key for each average, its group, and the keys of the tasks it is taken over."""
    members: dict[tuple[CellKey, str], list[CellKey]] = {}
    for key in keys:
        average = (key._replace(task=AVERAGE), groups[key.task])
        members.setdefault(average, []).append(key)
    for (key, group), tasks in members.items():
        yield key, group, tasks


def _rows(model: str, kind: Kind, key: CellKey, group: str, measures: Measures) -> Iterator[Score]:
    for metric, value in measures.values.items():
        low, high = None, None
        if metric in measures.resampled:
            low, high = metrics.interval(measures.resampled[metric])
        yield Score(
            model=model,
            model_kind=kind,
            task=key.task,
            group=group,
            language=key.language,
            scoring=cast("Scoring", key.scoring),
            shots=key.shots,
            metric=metric,
            value=value,
            low=low,
            high=high,
            num_questions=measures.num_questions,
            num_seeds=measures.num_seeds,
        )


def _confidence_and_right(cell: Cell) -> Floats:
    """Confidence and correctness of all answers of a cell, seeds pooled.  # (2, S x Q)."""
    confidence = metrics.renormalised(cell.logprobs).max(axis=-1)
    return np.stack([confidence.ravel(), metrics.correct(cell.logprobs, cell.gold).ravel()])


def _bars(
    model: str, key: CellKey, group: str, confidence: Floats, right: Floats
) -> Iterator[ReliabilityBin]:
    for bar in metrics.reliability(confidence, right, metrics.DIAGRAM_BINS):
        yield ReliabilityBin(
            model=model,
            task=key.task,
            group=group,
            language=key.language,
            scoring=cast("Scoring", key.scoring),
            low=bar.low,
            high=bar.high,
            num_answers=bar.num_answers,
            mean_confidence=bar.mean_confidence,
            accuracy=bar.accuracy,
        )
