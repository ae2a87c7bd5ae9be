"""Calibration: make a model's confidence mean what it says, without changing its answers.

    temperature   log-probabilities divided by one number (Guo et al. 2017, arXiv 1706.04599), which
                  minimises the negative log-likelihood of the right choices
    platt         the answer's confidence c becomes sigmoid(slope * logit(c) + intercept) (Platt
                  1999, with the prior counts given there); the other choices share the rest as
                  before. Two numbers: it can also say that a model is mostly wrong

Both are fitted on questions of their own: validation questions, or the other folds of the same
questions (*cross-fitted*: each question is calibrated by what was fitted without it). Folds follow
a hash of the question's id, so a question and its translations are in one. What is kept for later
use is fitted on all of them.

Pure. What is kept of it is in ``models.calibrations``. Knows nothing about models, tasks or files.

Shapes: S seeds, Q questions, C choices, N answers.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from biomistral.evaluation.columns import Floats, Ints

NUM_FOLDS = 5
METHODS = ("temperature", "platt")
LEAST_VALIDATION = 100  # questions: of fewer, the other folds of the test questions say more
# Where all answers are right (or wrong), likelihood alone would go on for ever.
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.05, 20.0
_ABSENT = -1e5  # log-probability of a choice that is not there; its exponential is 0
_SURE = 1e-12  # confidences are kept this far from 0 and 1


@dataclass(frozen=True, slots=True)
class Fit:
    """What calibrates one model; the identity by default."""

    temperature: float = 1.0
    slope: float = 1.0
    intercept: float = 0.0


# --- fitting --------------------------------------------------------------------------------------


def fit(logprobs: Floats, gold: Ints, start: Fit | None = None) -> Fit:
    """Fit both methods to N answers: (N, C) and (N,). Without answers it is the identity."""
    if not len(gold):
        return Fit()
    temperature = fit_temperature(logprobs, gold, start.temperature if start else 1.0)
    logits = confidence_logits(logprobs)
    right = logprobs.argmax(axis=-1) == gold
    slope, intercept = fit_platt(
        logits, right, start=(start.slope, start.intercept) if start else None
    )
    return Fit(temperature, slope, intercept)


def fit_temperature(logprobs: Floats, gold: Ints, start: float = 1.0) -> float:
    """Temperature of the lowest negative log-likelihood, from 0.05 to 20: (N, C) and (N,).

    The likelihood is convex in 1 / temperature; Newton's steps, and halving where one leaves the
    bounds.
    """
    values = logprobs - logprobs.max(axis=-1, keepdims=True)
    values = np.where(np.isfinite(values), values, _ABSENT)
    of_gold = float(values[np.arange(len(gold)), gold].mean())
    low, high = 1 / HIGHEST_TEMPERATURE, 1 / LOWEST_TEMPERATURE
    inverse = min(max(1 / start, low), high)
    for _ in range(50):
        weights = np.exp(inverse * values)
        weights /= weights.sum(axis=-1, keepdims=True)
        weighted = weights * values
        means = weighted.sum(axis=-1)
        slope = float(means.mean()) - of_gold
        curvature = float((np.einsum("nc,nc->n", weighted, values) - means**2).mean())
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        step = inverse - slope / curvature if curvature > 0 else math.inf
        if not low < step < high:
            step = math.sqrt(low * high)
        if abs(step - inverse) < 1e-7 * inverse:
            break
        inverse = step
    return 1 / inverse


def fit_platt(
    logits: Floats, right: Any, start: tuple[float, float] | None = None
) -> tuple[float, float]:
    """Slope and intercept of the lowest cross-entropy: N logits of confidence, N times right or not.

    Targets are Platt's: (right + 1) / (right + 2) and 1 / (wrong + 2), which keeps the fit finite
    where all answers are right. Newton's steps, halved until the loss falls.
    """
    num_right = float(np.sum(right))
    num_wrong = len(logits) - num_right
    targets = np.where(right, (num_right + 1) / (num_right + 2), 1 / (num_wrong + 2))
    design = np.stack([logits, np.ones_like(logits)])  # (2, N)
    at = np.array(start or (0.0, math.log((num_right + 1) / (num_wrong + 1))))
    loss = _cross_entropy(at @ design, targets)
    for _ in range(50):
        chances = _sigmoid(at @ design)
        gradient = design @ (chances - targets)
        hessian = (design * (chances * (1 - chances))) @ design.T + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        for halving in range(30):
            tried = at - step / 2**halving
            new_loss = _cross_entropy(tried @ design, targets)
            if new_loss <= loss:
                break
        else:
            break
        done = loss - new_loss <= 1e-12 * max(abs(loss), 1.0)
        at, loss = tried, new_loss
        if done:
            break
    return float(at[0]), float(at[1])


def folds(question_ids: Sequence[str]) -> Ints:
    """Fold of each question, from 0 to 4, by its id alone.  # (Q,)."""
    return np.array([zlib.crc32(name.encode()) % NUM_FOLDS for name in question_ids])


def cross_fits(logprobs: Floats, gold: Ints, fold: Ints) -> tuple[Fit, list[Fit]]:
    """Fit N answers whole, and once without each fold: (N, C), (N,) and (N,)."""
    whole = fit(logprobs, gold)
    parts = []
    for number in range(NUM_FOLDS):
        others = fold != number
        parts.append(fit(logprobs[others], gold[others], whole) if not others.all() else whole)
    return whole, parts


# --- applying -------------------------------------------------------------------------------------


def at_temperature(logprobs: Floats, temperature: Floats | float) -> Floats:
    """Divide (..., Q, C) by the temperature, one or (Q,); not renormalised."""
    calibrated: Floats = logprobs / np.asarray(temperature)[..., None]
    return calibrated


def by_platt(logprobs: Floats, slope: Floats | float, intercept: Floats | float) -> Floats:
    """Log-probabilities over the choices with calibrated confidence: (..., Q, C), one or (Q,)."""
    logits = confidence_logits(logprobs)
    new_logits = np.asarray(slope) * logits + np.asarray(intercept)
    top = logprobs.argmax(axis=-1)[..., None]
    rest = logprobs.copy()
    np.put_along_axis(rest, top, -np.inf, axis=-1)
    rest -= _log_sums(rest)[..., None]
    calibrated: Floats = rest - np.logaddexp(0, new_logits)[..., None]  # log(1 - new confidence)
    of_top = -np.logaddexp(0, -new_logits)
    np.put_along_axis(calibrated, top, of_top[..., None], axis=-1)
    return calibrated


def confidence_logits(logprobs: Floats) -> Floats:
    """Logit of the renormalised probability of the answer: (..., C) to (...)."""
    highest = logprobs.max(axis=-1, keepdims=True)
    others = np.exp(logprobs - highest).sum(axis=-1) - 1  # of the answer's probability
    others = np.clip(others, _SURE, 1 / _SURE)
    logits: Floats = -np.log(others)
    return logits


def _log_sums(values: Floats) -> Floats:
    highest = values.max(axis=-1)
    sums: Floats = highest + np.log(np.exp(values - highest[..., None]).sum(axis=-1))
    return sums


def _sigmoid(logits: Floats) -> Floats:
    chances: Floats = 0.5 * (1 + np.tanh(0.5 * logits))
    return chances


def _cross_entropy(logits: Floats, targets: Floats) -> float:
    return float((np.logaddexp(0, logits) - targets * logits).sum())
