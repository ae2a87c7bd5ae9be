"""The numbers: accuracy, its spread and interval, calibration, likelihood, abstaining, position.

Pure functions of arrays. A model's answer is the choice with the highest log-probability; of equal
ones the first. Calibration is that of the probabilities after they are divided by their sum over
the choices (``renormalised``), with one exception: ``published_ece`` follows the paper's script
(BioMistral, arXiv 2402.10373), which takes the letters' probabilities as the model gave them.
Values are fractions. Knows nothing about files, tasks or models.

Formulas: expected calibration error, Naeini et al. 2015 (AAAI) and Guo et al. 2017
(arXiv 1706.04599); Brier 1950 in its original form, summed over the choices (0 to 2);
bootstrap percentile interval, Efron 1979; risk and coverage, El-Yaniv and Wiener 2010 (JMLR).

Shapes: S seeds, Q questions, C choices, N answers (S x Q, or any), M measures, R resamples.
"""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from biomistral.evaluation.columns import Floats, Ints
from biomistral.records import UNSAID

NUM_RESAMPLES = 1000
PUBLISHED_BINS = 5
STANDARD_BINS = 15
DIAGRAM_BINS = 10


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers with confidence in (low, high]."""

    low: float
    high: float
    num_answers: int
    mean_confidence: float
    accuracy: float


# --- accuracy -------------------------------------------------------------------------------------


def correct(logprobs: Floats, gold: Ints) -> Floats:
    """Return 1 where the answer is right, else 0: (..., Q, C) and (Q,) to (..., Q).

    Words that name no choice are no right answer.
    """
    answered = logprobs.max(axis=-1) > UNSAID
    right: Floats = ((logprobs.argmax(axis=-1) == gold) & answered).astype(np.float64)
    return right


def accuracies(logprobs: Floats, gold: Ints) -> list[float]:
    """Accuracy with each seed: (S, Q, C) and (Q,) to S numbers."""
    return [float(value) for value in correct(logprobs, gold).mean(axis=1)]


def deviation(values: list[float]) -> float:
    """Standard deviation of the population (divided by n), as the paper reports it over seeds."""
    return statistics.pstdev(values)


# --- probabilities --------------------------------------------------------------------------------


def renormalised(logprobs: Floats) -> Floats:
    """Divide probabilities by their sum over the choices: softmax over the last axis."""
    shifted = np.exp(logprobs - logprobs.max(axis=-1, keepdims=True))
    probabilities: Floats = shifted / shifted.sum(axis=-1, keepdims=True)
    return probabilities


def brier_scores(probabilities: Floats, gold: Ints) -> Floats:
    """Squared distance to the right answer, summed over choices: (..., Q, C) to (..., Q).

    0 for certainty in the right choice, 2 for certainty in a wrong one.
    """
    truth = np.arange(probabilities.shape[-1]) == gold[:, None]
    scores: Floats = ((probabilities - truth) ** 2).sum(axis=-1)
    return scores


def negative_log_likelihoods(logprobs: Floats, gold: Ints) -> Floats:
    """Minus the log of the right choice's renormalised probability: (..., Q, C) to (..., Q)."""
    highest = logprobs.max(axis=-1)
    log_sums = highest + np.log(np.exp(logprobs - highest[..., None]).sum(axis=-1))
    of_gold = np.take_along_axis(
        logprobs, np.broadcast_to(gold, logprobs.shape[:-1])[..., None], axis=-1
    )[..., 0]
    losses: Floats = log_sums - of_gold
    return losses


def confidences(logprobs: Floats) -> Floats:
    """Renormalised probability of the answer: (..., C) to (...)."""
    shifted = np.exp(logprobs - logprobs.max(axis=-1, keepdims=True))
    confidence: Floats = 1 / shifted.sum(axis=-1)
    return confidence


# --- calibration ----------------------------------------------------------------------------------


def reliability(confidence: Floats, right: Floats, num_bins: int) -> list[Bin]:
    """Sort N answers by confidence into equal bins (low, high] of [0, 1]; empty bins are left out.

    The lowest bin is open below, so an answer with confidence 0 is in none, as published.
    """
    return _binned(confidence, right, np.arange(num_bins + 1) / num_bins)


def equal_mass(confidence: Floats, right: Floats, num_bins: int) -> list[Bin]:
    """Sort N answers by confidence into bins of about N / ``num_bins`` answers (lower, upper].

    Equal confidences share a bin, so bins can be larger than others, or empty and left out.
    """
    inner = np.quantile(confidence, np.arange(1, num_bins) / num_bins)
    return _binned(confidence, right, np.concatenate([[-np.inf], inner, [np.inf]]))


def _binned(confidence: Floats, right: Floats, edges: Floats) -> list[Bin]:
    num_bins = len(edges) - 1
    index = np.searchsorted(edges, confidence, side="left") - 1  # an edge is in the bin below it
    kept = (index >= 0) & (index < num_bins)
    index, confidence, right = index[kept], confidence[kept], right[kept]
    counts = np.bincount(index, minlength=num_bins)
    confidences = np.bincount(index, weights=confidence, minlength=num_bins)
    rights = np.bincount(index, weights=right, minlength=num_bins)
    return [
        Bin(
            low=float(edges[number]),
            high=float(edges[number + 1]),
            num_answers=int(counts[number]),
            mean_confidence=float(confidences[number] / counts[number]),
            accuracy=float(rights[number] / counts[number]),
        )
        for number in np.flatnonzero(counts).tolist()
    ]


def calibration_error(bins: Sequence[Bin], num_answers: int) -> float:
    """Mean over all answers of how far their bin's accuracy is from its mean confidence."""
    gaps = (bin_.num_answers * abs(bin_.accuracy - bin_.mean_confidence) for bin_ in bins)
    return sum(gaps) / num_answers


def expected_calibration_error(confidence: Floats, right: Floats, num_bins: int) -> float:
    """ECE of N answers with bins of equal width."""
    return calibration_error(reliability(confidence, right, num_bins), len(confidence))


def standard_ece(logprobs: Floats, gold: Ints) -> float:
    """ECE of (Q, C) with 15 bins, confidence renormalised over the choices."""
    return expected_calibration_error(confidences(logprobs), correct(logprobs, gold), STANDARD_BINS)


def equal_mass_ece(confidence: Floats, right: Floats) -> float:
    """ECE of N answers with 15 bins of equally many answers (Nixon et al. 2019, 1904.01685)."""
    return calibration_error(equal_mass(confidence, right, STANDARD_BINS), len(confidence))


def published_ece(logprobs: Floats, gold: Ints, *, letters: bool) -> float:
    """ECE of (Q, C) as the paper's script takes it: 5 bins, confidence not renormalised.

    Defined for letters only. Without letters (cloze scoring gives mean log-probabilities per byte,
    whose exponentials are no probabilities) confidence is renormalised.
    """
    highest = logprobs.max(axis=-1)
    confidence = np.exp(np.minimum(highest, 0.0)) if letters else confidences(logprobs)
    return expected_calibration_error(confidence, correct(logprobs, gold), PUBLISHED_BINS)


# --- telling right from wrong ---------------------------------------------------------------------


def auroc(confidence: Floats, right: Floats) -> float:
    """Chance that a right answer is surer than a wrong one, a tie counting half; from N answers.

    Not a number where all are right or all wrong.
    """
    num_right = int(right.sum())
    num_wrong = len(right) - num_right
    if not num_right or not num_wrong:
        return float("nan")
    _, place, counts = np.unique(confidence, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # mean rank of equal values, from 1
    of_right = float(ranks[place][right > 0].sum())
    return (of_right - num_right * (num_right + 1) / 2) / (num_right * num_wrong)


def selective_accuracies(confidence: Floats, right: Floats) -> Floats:
    """Accuracy on the n surest of N answers, for n from 1 to N.  # (N,).

    Among equally sure answers the right ones are spread evenly, so no order decides.
    """
    levels, place, counts = np.unique(-confidence, return_inverse=True, return_counts=True)
    rate = np.bincount(place, weights=right, minlength=len(levels)) / counts
    accuracies_: Floats = np.cumsum(np.repeat(rate, counts)) / np.arange(1, len(right) + 1)
    return accuracies_


def accuracy_at(accuracies_: Floats, coverage: float) -> float:
    """Accuracy when the surest ``coverage`` of the questions are answered (at least one)."""
    answered = max(math.ceil(coverage * len(accuracies_) - 1e-9), 1)
    return float(accuracies_[answered - 1])


# --- position -------------------------------------------------------------------------------------


def shares(places: Ints, num_places: int) -> Floats:
    """Share of each place among (...) places.  # (num_places,)."""
    counts: Floats = np.bincount(places.ravel(), minlength=num_places) / places.size
    return counts


def position_bias(chosen: Floats, right: Floats) -> float:
    """How far the shares of chosen places are from those of right ones: 0 equal, 1 disjoint.

    Half the sum of (chosen - right)² / (chosen + right): a chi-square distance that both sides
    enter alike, and that a place which is never right leaves finite.
    """
    total = chosen + right
    there = total > 0
    return float(((chosen - right)[there] ** 2 / total[there]).sum() / 2)


# --- intervals ------------------------------------------------------------------------------------


def resample_counts(
    num_questions: int, seed: int, label: str, num_resamples: int = NUM_RESAMPLES
) -> Floats:
    """Draw resamples of Q questions; how often each takes each question.  # (R, Q).

    ``label`` keeps tasks apart: the draws of one do not depend on which others are scored. All
    seeds and models share the draws of a task, so that the answers to a question stay together.
    """
    generator = _generator(seed, label)
    drawn = generator.integers(num_questions, size=(num_resamples, num_questions))
    drawn += np.arange(num_resamples)[:, None] * num_questions
    counts = np.bincount(drawn.ravel(), minlength=num_resamples * num_questions)
    return counts.reshape(num_resamples, num_questions).astype(np.float64)


def seed_weights(
    num_seeds: int, seed: int, label: str, num_resamples: int = NUM_RESAMPLES
) -> Floats:
    """Draw resamples of S seeds; the share of each in each resample.  # (R, S).

    Questions and seeds are drawn apart from each other (two-way bootstrap, Owen 2007,
    arXiv 0711.1446): both are samples, of questions and of worked examples.
    """
    return resample_counts(num_seeds, seed, f"seeds of {label}", num_resamples) / num_seeds


def resampled_means(counts: Floats, values: Floats) -> Floats:
    """Means of (Q, M) values over each resample.  # (R, M)."""
    means: Floats = counts @ values / values.shape[0]
    return means


def interval(resampled: Floats) -> tuple[float, float]:
    """Bounds of the middle 95 % of the resampled values.  # (R,)."""
    low, high = np.quantile(resampled, [0.025, 0.975])
    return float(low), float(high)


def _generator(seed: int, label: str) -> np.random.Generator:
    number = int.from_bytes(hashlib.sha256(f"{seed} {label}".encode()).digest()[:8])
    return np.random.default_rng(number)
