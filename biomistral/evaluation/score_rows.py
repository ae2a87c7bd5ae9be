"""From answers to rows: scores, bars of reliability diagrams, points of risk-coverage curves, fits.

Pure: cells go in, records come out. Decides what is pooled: calibration is fitted, and diagrams are
drawn, over all tasks of a group in one language with one scoring and number of shots. What the
numbers mean is in ``measures`` and ``metrics``; nothing here knows about files.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Literal, cast

import numpy as np

from biomistral.evaluation import calibration, measures, metrics
from biomistral.evaluation.columns import Cell, CellKey, Floats, Ints
from biomistral.evaluation.measures import Calibrator, Draws, Measures
from biomistral.models import calibrations
from biomistral.models.calibrations import SavedFit
from biomistral.records import CoveragePoint, ReliabilityBin, Score, Scoring

AVERAGE = "average"
RANDOM_CHOICE = "random choice"
MAJORITY_CHOICE = "majority choice"
NUM_COVERAGES = 20

Kind = Literal["model", "ensemble", "baseline"]
Cells = Mapping[str, Mapping[CellKey, Cell]]
Calibrators = Mapping[str, Mapping[CellKey, Calibrator]]


class TaskDraws:
    """The resamples of each task, drawn once and shared by its languages and models."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._kept: dict[tuple[str, int, bool], Floats] = {}

    def of(self, key: CellKey, cell: Cell) -> Draws:
        """Return the resamples for one cell; they depend on task, size and seed alone."""
        return Draws(
            self._drawn(key.task, len(cell.gold), of_seeds=False),
            self._drawn(key.task, len(cell.seeds), of_seeds=True),
        )

    def _drawn(self, task: str, number: int, *, of_seeds: bool) -> Floats:
        name = (task, number, of_seeds)
        if name not in self._kept:
            draw = metrics.seed_weights if of_seeds else metrics.resample_counts
            self._kept[name] = draw(number, self._seed, task)
        return self._kept[name]


def scores(
    cells: Cells,
    groups: Mapping[str, str],
    *,
    seed: int,
    ensembles: Collection[str],
    calibrators: Calibrators | None = None,
) -> list[Score]:
    """Return all rows: per model its tasks, then its averages; baselines come last.

    Models must agree on the questions of each cell they have; ``groups`` has the group of each
    task. Without ``calibrators`` there are no numbers after calibrating.
    """
    rows: list[Score] = []
    for model, by_key in _measure_all(cells, seed, calibrators or {}).items():
        kind: Kind = "ensemble" if model in ensembles else "model"
        if model in {RANDOM_CHOICE, MAJORITY_CHOICE}:
            kind = "baseline"
        for key, measured in by_key.items():
            rows += _rows(model, kind, key, groups[key.task], measured)
        for key, group, tasks in _groups(by_key, groups):
            rows += _rows(model, kind, key, group, measures.average([by_key[t] for t in tasks]))
    return rows


def fit_calibrators(
    cells: Mapping[CellKey, Cell],
    groups: Mapping[str, str],
    validation: Mapping[CellKey, Cell] | None = None,
    saved: Sequence[SavedFit] = (),
) -> tuple[dict[CellKey, Calibrator], list[SavedFit]]:
    """Calibrate one model, each group of tasks on its own; return also what is to be kept.

    What is ``saved`` for a group is taken as it is. Other groups are fitted on ``validation``, and
    cross-fitted where it has fewer than ``LEAST_VALIDATION`` questions.
    """
    calibrators: dict[CellKey, Calibrator] = {}
    kept: list[SavedFit] = []
    if _in_words(cells) or _in_words(validation or {}):
        return calibrators, kept
    there = {(key, group): tasks for key, group, tasks in _groups(validation or {}, groups)}
    for key, group, tasks in _groups(cells, groups):
        on_validation = there.get((key, group), [])
        if validation is None or not _has_enough(validation, on_validation):
            on_validation = []
        own = [fit for fit in saved if fit.group == group]
        found = calibrations.choose(own, None, key.language, key.scoring, key.shots)
        if found:
            parts = [calibration.Fit(found.temperature, found.slope, found.intercept)]
        else:
            source = validation if validation and on_validation else cells
            asked = [source[task] for task in on_validation or tasks]
            found, parts = _fitted(key, group, asked, crossed=not on_validation)
            found = replace(found, tasks=tuple(t.task for t in on_validation or tasks))
        kept.append(found)
        whole = calibration.Fit(found.temperature, found.slope, found.intercept)
        parts = parts if len(parts) > 1 else parts * calibration.NUM_FOLDS
        for task in tasks:
            fold = calibration.folds(cells[task].question_ids)
            calibrators[task] = Calibrator(whole, fold, parts)
    return calibrators, kept


def _fitted(
    key: CellKey, group: str, asked: Sequence[Cell], *, crossed: bool
) -> tuple[SavedFit, list[calibration.Fit]]:
    """Fit pooled cells whole, and (``crossed``) once without each fold."""
    logprobs, gold, fold = _pooled(asked)
    if crossed:
        whole, parts = calibration.cross_fits(logprobs, gold, fold)
    else:
        whole = calibration.fit(logprobs, gold)
        parts = [whole]
    numbers = asdict(whole)
    fit = SavedFit(
        group=group,
        tasks=(),
        language=key.language,
        scoring=key.scoring,
        shots=key.shots,
        **numbers,
        num_answers=len(gold),
        fitted_on="test" if crossed else "validation",
    )
    return fit, parts


def _has_enough(validation: Mapping[CellKey, Cell], tasks: Sequence[CellKey]) -> bool:
    return sum(len(validation[key].gold) for key in tasks) >= calibration.LEAST_VALIDATION


def reliability_bins(
    cells: Cells, groups: Mapping[str, str], calibrators: Calibrators | None = None
) -> list[ReliabilityBin]:
    """Return the bars of all reliability diagrams, of each task and of each group pooled.

    Confidence is renormalised over the choices; all seeds are pooled. With ``calibrators``, the
    bars of each group after calibrating follow.
    """
    rows: list[ReliabilityBin] = []
    for model, by_key in cells.items():
        if _in_words(by_key):
            continue
        own = (calibrators or {}).get(model, {})
        answers = {key: _confidence_and_right(cell) for key, cell in by_key.items()}
        for key, (confidence, right) in answers.items():
            rows += _bars(model, key, groups[key.task], confidence, right)
        for key, group, tasks in _groups(by_key, groups):
            confidence, right = np.concatenate([answers[task] for task in tasks], axis=1)
            rows += _bars(model, key, group, confidence, right)
            for method in calibration.METHODS if all(task in own for task in tasks) else ():
                after = [_calibrated_confidence(by_key[t], own[t], method) for t in tasks]
                rows += _bars(model, key, group, np.concatenate(after), right, method)
    return rows


def coverage_points(cells: Cells, groups: Mapping[str, str]) -> list[CoveragePoint]:
    """Return 20 points of the risk-coverage curve of each model and group, seeds pooled."""
    rows: list[CoveragePoint] = []
    for model, by_key in cells.items():
        if _in_words(by_key):
            continue
        for key, group, tasks in _groups(by_key, groups):
            answers = [_confidence_and_right(by_key[task]) for task in tasks]
            accuracies = metrics.selective_accuracies(*np.concatenate(answers, axis=1))
            for number in range(1, NUM_COVERAGES + 1):
                coverage = number / NUM_COVERAGES
                rows.append(
                    CoveragePoint(
                        model=model,
                        task=AVERAGE,
                        group=group,
                        language=key.language,
                        scoring=cast("Scoring", key.scoring),
                        shots=key.shots,
                        coverage=coverage,
                        accuracy=metrics.accuracy_at(accuracies, coverage),
                    )
                )
    return rows


def _measure_all(
    cells: Cells, seed: int, calibrators: Calibrators
) -> dict[str, dict[CellKey, Measures]]:
    """Measure all models and both baselines."""
    draws = TaskDraws(seed)
    measured: dict[str, dict[CellKey, Measures]] = {
        model: {} for model in (*cells, RANDOM_CHOICE, MAJORITY_CHOICE)
    }
    for key in dict.fromkeys(key for by_key in cells.values() for key in by_key):
        having = {model: by_key[key] for model, by_key in cells.items() if key in by_key}
        cell = next(iter(having.values()))
        drawn = draws.of(key, cell)
        for model, own in having.items():
            calibrator = calibrators.get(model, {}).get(key)
            measured[model][key] = measures.measure(own, key.scoring, drawn, calibrator)
        measured[RANDOM_CHOICE][key] = measures.random_choice(cell)
        measured[MAJORITY_CHOICE][key] = measures.majority_choice(cell, drawn)
    return measured


def _in_words(cells: Mapping[CellKey, Cell]) -> bool:
    """Whether some answers of a model have no probabilities."""
    return any(cell.in_words for cell in cells.values())


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


def _rows(model: str, kind: Kind, key: CellKey, group: str, measured: Measures) -> Iterator[Score]:
    for metric, value in measured.values.items():
        low, high = None, None
        if metric in measured.resampled:
            low, high = metrics.interval(measured.resampled[metric])
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
            num_questions=measured.num_questions,
            num_seeds=measured.num_seeds,
        )


def _pooled(cells: Sequence[Cell]) -> tuple[Floats, Ints, Ints]:
    """Log-probabilities, right choices and folds of all answers.  # (N, C), (N,), (N,)."""
    width = max(cell.logprobs.shape[-1] for cell in cells)
    logprobs, gold, fold = [], [], []
    for cell in cells:
        missing = ((0, 0), (0, 0), (0, width - cell.logprobs.shape[-1]))
        padded = np.pad(cell.logprobs, missing, constant_values=-np.inf)
        logprobs.append(padded.reshape(-1, width))
        gold.append(np.tile(cell.gold, len(cell.seeds)))
        fold.append(np.tile(calibration.folds(cell.question_ids), len(cell.seeds)))
    return np.concatenate(logprobs), np.concatenate(gold), np.concatenate(fold)


def _confidence_and_right(cell: Cell) -> Floats:
    """Confidence and correctness of all answers of a cell, seeds pooled.  # (2, S x Q)."""
    confidence = metrics.confidences(cell.logprobs)
    return np.stack([confidence.ravel(), metrics.correct(cell.logprobs, cell.gold).ravel()])


def _calibrated_confidence(cell: Cell, calibrator: Calibrator, method: str) -> Floats:
    """Confidence in the model's own answers after calibrating, seeds pooled.  # (S x Q,)."""
    apply = calibrator.by_platt if method == "platt" else calibrator.at_temperature
    chosen = cell.logprobs.argmax(axis=-1)
    return measures.confidence_of(apply(cell.logprobs), chosen).ravel()


def _bars(
    model: str, key: CellKey, group: str, confidence: Floats, right: Floats, method: str = ""
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
            calibration=method,
        )
