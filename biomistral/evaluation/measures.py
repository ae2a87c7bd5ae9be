"""What is measured on one cell of answers, its resamples for intervals, and averages over cells.

Pure. A macro average is the unweighted mean over tasks, resample by resample; a micro average
weighs tasks by their questions. Knows nothing about files, rows or groups of tasks.

Metrics, fractions or natural logarithms, means over questions and seeds unless said otherwise:

    accuracy            share of right answers
    accuracy_micro      of an average: every question counts the same, not every task
    accuracy_deviation  population standard deviation of the accuracy over the seeds
    accuracy_top        share of questions where the most probable token of the whole vocabulary is
                        the right letter: the other accuracy of the paper's scripts
    accuracy_at_50, _80 on the share of questions that the model is surest of
    ece, ece_mass, ece_published  expected calibration error (metrics.py), mean over the seeds
    brier               Brier score, summed over the choices (0 to 2)
    negative_log_likelihood  of the right choice, in nats
    auroc               of confidence: how well it tells right answers from wrong ones
    risk_coverage_area  mean error over all coverages: of a model that abstains where it is not sure
    temperature         that calibrates the model, fitted on the group of tasks
    ..._temperature, ..._platt  the metric after calibrating
    position_bias       distance of the places chosen from those that are right, 0 to 1
    chosen_A, right_A   share of answers at a place, and how often the right one was shown there

Shapes: S seeds, Q questions, C choices, M measures, R resamples.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from biomistral.evaluation import calibration, metrics
from biomistral.evaluation.calibration import Fit
from biomistral.evaluation.columns import Cell, Floats, Ints
from biomistral.records import LETTERS

LETTER_SCORINGS = {"letter", "published"}  # whose numbers are probabilities of letters
COVERAGES = {"accuracy_at_50": 0.5, "accuracy_at_80": 0.8}
_RESAMPLED = ("accuracy", "brier", "negative_log_likelihood")


@dataclass(frozen=True)
class Measures:
    """What is known of one model in one cell, or on average over several."""

    values: dict[str, float]  # by metric
    resampled: dict[str, Floats]  # (R,), of the metrics that get an interval
    accuracies: tuple[float, ...]  # by seed; empty for baselines
    num_questions: int
    num_seeds: int


@dataclass(frozen=True)
class Draws:
    """The resamples of one task."""

    questions: Floats  # (R, Q) how often each is drawn
    seeds: Floats  # (R, S) share of each


@dataclass(frozen=True)
class Calibrator:
    """How each question of a cell is calibrated: by what was fitted without it."""

    whole: Fit  # fitted on all, to be reported
    fold: Ints  # (Q,)
    parts: Sequence[Fit]  # by fold

    def at_temperature(self, logprobs: Floats) -> Floats:
        """Log-probabilities over the calibrated temperature.  # (S, Q, C)."""
        temperatures = np.array([part.temperature for part in self.parts])[self.fold]
        return calibration.at_temperature(logprobs, temperatures)

    def by_platt(self, logprobs: Floats) -> Floats:
        """Log-probabilities with calibrated confidence.  # (S, Q, C)."""
        lines = np.array([(part.slope, part.intercept) for part in self.parts])[self.fold]
        return calibration.by_platt(logprobs, lines[:, 0], lines[:, 1])


# All that can be said of answers in words.
_OF_WORDS = {"accuracy", "accuracy_deviation", "accuracy_top"}


def measure(cell: Cell, scoring: str, draws: Draws, calibrator: Calibrator | None) -> Measures:
    """Measure one model on one cell."""
    right = metrics.correct(cell.logprobs, cell.gold)
    confidence = metrics.confidences(cell.logprobs)
    per_question = {"accuracy": right, **_losses(cell.logprobs, cell.gold)}
    stacked = np.stack([per_question[name] for name in _RESAMPLED])  # (M, S, Q)
    accuracies = metrics.accuracies(cell.logprobs, cell.gold)
    values = {name: float(numbers.mean()) for name, numbers in per_question.items()}
    values["accuracy_deviation"] = metrics.deviation(accuracies)
    if cell.tops is not None and scoring == "published":
        values["accuracy_top"] = float((cell.tops == shown_at(cell, cell.gold)).mean())
    values |= _calibration_errors(cell, scoring)
    values |= _abstaining(confidence, right)
    if calibrator is not None:
        values |= _calibrated(cell, calibrator, right)
    if scoring in LETTER_SCORINGS:
        values |= _positions(cell)
    if cell.in_words:  # what is made of probabilities would say nothing
        values = {name: value for name, value in values.items() if name in _OF_WORDS}
    return Measures(
        values=values,
        resampled=dict(zip(_RESAMPLED, resampled(stacked, draws).T, strict=True)),
        accuracies=tuple(accuracies),
        num_questions=len(cell.gold),
        num_seeds=len(cell.seeds),
    )


def resampled(values: Floats, draws: Draws) -> Floats:
    """Means over resampled questions and seeds: (M, S, Q) to (R, M)."""
    num_measures, num_seeds, num_questions = values.shape
    means = metrics.resampled_means(draws.questions, values.reshape(-1, num_questions).T)
    by_seed = means.reshape(len(means), num_measures, num_seeds)
    weighted: Floats = (by_seed * draws.seeds[:, None, :]).sum(axis=-1)
    return weighted


def shown_at(cell: Cell, choices: Ints) -> Ints:
    """Place at which a choice was shown: (Q,) or (S, Q) indices to (S, Q) places."""
    choices = np.broadcast_to(choices, cell.logprobs.shape[:-1])
    if cell.places is None:
        return choices
    places: Ints = np.take_along_axis(cell.places, choices[..., None], axis=-1)[..., 0]
    return places


def random_choice(cell: Cell) -> Measures:
    """What to expect from guessing, and from giving every choice the same probability."""
    values = {
        "accuracy": float((1 / cell.num_choices).mean()),
        "brier": float((1 - 1 / cell.num_choices).mean()),
        "negative_log_likelihood": float(np.log(cell.num_choices).mean()),
    }
    return Measures(values, {}, (), len(cell.gold), len(cell.seeds))


def majority_choice(cell: Cell, draws: Draws) -> Measures:
    """Accuracy of always naming the place that is most often right among these very questions."""
    most_common = np.bincount(cell.gold).argmax()
    right = (cell.gold == most_common).astype(np.float64)
    means = metrics.resampled_means(draws.questions, right[:, None])[:, 0]
    value = float(right.mean())
    return Measures({"accuracy": value}, {"accuracy": means}, (), len(cell.gold), len(cell.seeds))


def average(tasks: Sequence[Measures]) -> Measures:
    """Unweighted mean over tasks of every metric that all have, resample by resample."""
    first = tasks[0]
    values = {
        name: statistics.fmean(task.values.get(name, 0.0) for task in tasks)
        for name in _shared(tasks)
    }
    accuracies: tuple[float, ...] = ()
    if "accuracy_deviation" in values:
        # The spread of the average, which is less than the average of the spreads.
        accuracies = tuple(
            statistics.fmean(of_seed)
            for of_seed in zip(*(task.accuracies for task in tasks), strict=True)
        )
        values["accuracy_deviation"] = metrics.deviation(list(accuracies))
    means = {
        name: np.mean([task.resampled[name] for task in tasks], axis=0) for name in first.resampled
    }
    shares = np.array([task.num_questions for task in tasks], dtype=np.float64)
    shares /= shares.sum()
    values["accuracy_micro"] = float(shares @ [task.values["accuracy"] for task in tasks])
    if "accuracy" in means:
        means["accuracy_micro"] = shares @ [task.resampled["accuracy"] for task in tasks]
    return Measures(
        values=values,
        resampled=means,
        accuracies=accuracies,
        num_questions=sum(task.num_questions for task in tasks),
        num_seeds=first.num_seeds,
    )


def _shared(tasks: Sequence[Measures]) -> Iterable[str]:
    """Metrics that every task has; a letter that a task does not offer was chosen 0 times."""
    names = dict.fromkeys(name for task in tasks for name in task.values)
    if not all("position_bias" in task.values for task in tasks):
        names = {name: None for name in names if not name.startswith(("chosen_", "right_"))}
    return [
        name
        for name in names
        if name.startswith(("chosen_", "right_")) or all(name in task.values for task in tasks)
    ]


def _losses(logprobs: Floats, gold: Ints) -> dict[str, Floats]:
    """Losses of each answer.  # (S, Q)."""
    return {
        "brier": metrics.brier_scores(metrics.renormalised(logprobs), gold),
        "negative_log_likelihood": metrics.negative_log_likelihoods(logprobs, gold),
    }


def _calibration_errors(cell: Cell, scoring: str) -> dict[str, float]:
    letters = scoring in LETTER_SCORINGS
    by_seed = [
        (
            metrics.standard_ece(of_seed, cell.gold),
            metrics.equal_mass_ece(
                metrics.confidences(of_seed), metrics.correct(of_seed, cell.gold)
            ),
            metrics.published_ece(of_seed, cell.gold, letters=letters),
        )
        for of_seed in cell.logprobs
    ]
    return _means(("ece", "ece_mass", "ece_published"), by_seed)


def _abstaining(confidence: Floats, right: Floats) -> dict[str, float]:
    """Metrics of answering only what the model is sure of, means over the seeds."""
    names = ("risk_coverage_area", *COVERAGES, "auroc")
    by_seed = []
    for sure, is_right in zip(confidence, right, strict=True):
        accuracies = metrics.selective_accuracies(sure, is_right)
        at = (metrics.accuracy_at(accuracies, coverage) for coverage in COVERAGES.values())
        by_seed.append((1 - float(accuracies.mean()), *at, metrics.auroc(sure, is_right)))
    values = _means(names, by_seed)
    if np.isnan(values["auroc"]):  # with some seed all are right, or all wrong
        del values["auroc"]
    return values


def _calibrated(cell: Cell, calibrator: Calibrator, right: Floats) -> dict[str, float]:
    values = {"temperature": calibrator.whole.temperature}
    for method, logprobs in (
        ("temperature", calibrator.at_temperature(cell.logprobs)),
        ("platt", calibrator.by_platt(cell.logprobs)),
    ):
        # The answer stays the model's own, even where Platt's scaling makes another one likelier.
        confidence = confidence_of(logprobs, cell.logprobs.argmax(axis=-1))
        values[f"ece_{method}"] = statistics.fmean(
            metrics.expected_calibration_error(sure, is_right, metrics.STANDARD_BINS)
            for sure, is_right in zip(confidence, right, strict=True)
        )
        for name, losses in _losses(logprobs, cell.gold).items():
            values[f"{name}_{method}"] = float(losses.mean())
    return values


def confidence_of(logprobs: Floats, choices: Ints) -> Floats:
    """Renormalised probability of one choice each: (S, Q, C) and (S, Q) to (S, Q)."""
    probabilities = metrics.renormalised(logprobs)
    chosen: Floats = np.take_along_axis(probabilities, choices[..., None], axis=-1)[..., 0]
    return chosen


def _positions(cell: Cell) -> dict[str, float]:
    num_places = int(cell.num_choices.max())
    chosen = metrics.shares(shown_at(cell, cell.logprobs.argmax(axis=-1)), num_places)
    right = metrics.shares(shown_at(cell, cell.gold), num_places)
    values = {"position_bias": metrics.position_bias(chosen, right)}
    for letter, share, right_share in zip(LETTERS, chosen.tolist(), right.tolist(), strict=False):
        values |= {f"chosen_{letter}": share, f"right_{letter}": right_share}
    return values


def _means(names: Iterable[str], by_seed: Sequence[Sequence[float]]) -> dict[str, float]:
    means: Mapping[str, float] = dict(
        zip(names, np.mean(np.array(by_seed), axis=0).tolist(), strict=True)
    )
    return dict(means)
