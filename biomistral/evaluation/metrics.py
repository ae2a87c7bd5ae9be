"""The numbers: accuracy, its spread and interval, calibration, Brier score, likelihood.

Pure functions of arrays. A model's answer is the choice with the highest log-probability; of equal
ones the first. Calibration is that of the probabilities after they are divided by their sum over
the choices (``renormalised``), with one exception: ``published_ece`` follows the paper's script
(BioMistral, arXiv 2402.10373), which takes the letters' probabilities as the model gave them.
Values are fractions. Knows nothing about files, tasks or models.

Formulas: expected calibration error, Naeini et al. 2015 (AAAI) and Guo et al. 2017
(arXiv 1706.04599); Brier 1950 in its original form, summed over the choices (0 to 2);
bootstrap percentile interval, Efron 1979.

Shapes: S seeds, Q questions, C choices, N answers (S x Q, or any), M measures, R resamples.
"""

from __future__ import annotations

import hashlib
import statistics
from dataclasses import dataclass

import numpy as np

from biomistral.evaluation.columns import Floats, Ints

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
    """Return 1 where the answer is right, else 0: (..., Q, C) and (Q,) to (..., Q)."""
    right: Floats = (logprobs.argmax(axis=-1) == gold).astype(np.float64)
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


# --- calibration ----------------------------------------------------------------------------------


def reliability(confidence: Floats, right: Floats, num_bins: int) -> list[Bin]:
    """Sort N answers by confidence into equal bins (low, high] of [0, 1]; empty bins are left out.

    The lowest bin is open below, so an answer with confidence 0 is in none, as published.
    """
    edges = np.arange(num_bins + 1) / num_bins
    index = np.searchsorted(edges, confidence, side="left") - 1  # an edge is in the bin below it
    kept = (index >= 0) & (index < num_bins)
    index, confidence, right = index[kept], confidence[kept], right[kept]
    counts = np.bincount(index, minlength=num_bins)
    confidences = np.bincount(index, weights=confidence, minlength=num_bins)
    rights = np.bincount(index, weights=right, minlength=num_bins)
    return [
        Bin(
            low=number / num_bins,
            high=(number + 1) / num_bins,
            num_answers=int(counts[number]),
            mean_confidence=float(confidences[number] / counts[number]),
            accuracy=float(rights[number] / counts[number]),
        )
        for number in np.flatnonzero(counts).tolist()
    ]


def expected_calibration_error(confidence: Floats, right: Floats, num_bins: int) -> float:
    """Mean over all N answers of how far their bin's accuracy is from its mean confidence."""
    gaps = [
        bin_.num_answers * abs(bin_.accuracy - bin_.mean_confidence)
        for bin_ in reliability(confidence, right, num_bins)
    ]
    return sum(gaps) / len(confidence)


def standard_ece(logprobs: Floats, gold: Ints) -> float:
    """ECE of (Q, C) with 15 bins, confidence renormalised over the choices."""
    confidence = renormalised(logprobs).max(axis=-1)
    return expected_calibration_error(confidence, correct(logprobs, gold), STANDARD_BINS)


def published_ece(logprobs: Floats, gold: Ints, *, letters: bool) -> float:
    """ECE of (Q, C) as the paper's script takes it: 5 bins, confidence not renormalised.

    Defined for letters only. Without letters (cloze scoring gives mean log-probabilities per byte,
    whose exponentials are no probabilities) confidence is renormalised.
    """
    highest = logprobs.max(axis=-1)
    confidence = (
        np.exp(np.minimum(highest, 0.0)) if letters else renormalised(logprobs).max(axis=-1)
    )
    return expected_calibration_error(confidence, correct(logprobs, gold), PUBLISHED_BINS)


# --- intervals ------------------------------------------------------------------------------------


def resample_counts(num_questions: int, seed: int, label: str) -> Floats:
    """Draw 1,000 resamples of Q questions; how often each takes each question.  # (R, Q).

    ``label`` keeps tasks apart: the draws of one do not depend on which others are scored. All
    seeds and models share the draws of a task, so that the answers to a question stay together.
    """
    number = int.from_bytes(hashlib.sha256(f"{seed} {label}".encode()).digest()[:8])
    generator = np.random.default_rng(number)
    drawn = generator.integers(num_questions, size=(NUM_RESAMPLES, num_questions))
    drawn += np.arange(NUM_RESAMPLES)[:, None] * num_questions
    counts = np.bincount(drawn.ravel(), minlength=NUM_RESAMPLES * num_questions)
    return counts.reshape(NUM_RESAMPLES, num_questions).astype(np.float64)


def resampled_means(counts: Floats, values: Floats) -> Floats:
    """Means of (Q, M) values over each resample.  # (R, M)."""
    means: Floats = counts @ values / values.shape[0]
    return means


def interval(resampled: Floats) -> tuple[float, float]:
    """Bounds of the middle 95 % of the resampled values.  # (R,)."""
    low, high = np.quantile(resampled, [0.025, 0.975])
    return float(low), float(high)
