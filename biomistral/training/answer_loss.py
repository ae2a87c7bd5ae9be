"""The loss on answers, and what keeps a model from growing surer than it is right.

    loss = mean over answer tokens of
             cross-entropy against the smoothed target
           - entropy_weight * entropy of the answer           (Pereyra et al., arXiv 1701.06548)
           + jeffreys_weight * J(model, start)                (Jeffreys divergence, below)

Smoothing (Szegedy et al., arXiv 1512.00567) spreads a share of the target evenly over the letters
of the choices, and entropy is that of the probabilities renormalised over these letters; where the
answer is no letter both are over the whole vocabulary. The Jeffreys divergence is symmetric,
J(p, q) = KL(p, q) + KL(q, p) = sum over tokens of (p - q) (log p - log q), in nats.

Pure functions of logits. All arithmetic is in float32 or wider. Shapes: N answer tokens, V tokens
of the vocabulary, K letters.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Calibrating:
    """How much is done against overconfidence; all zero: plain cross-entropy."""

    smoothing: float = 0.0  # share of the target that is spread, [0, 1)
    entropy_weight: float = 0.0
    jeffreys_weight: float = 0.0


def answer_losses(
    logits: Tensor,
    targets: Tensor,
    *,
    letters: Tensor | None = None,
    calibrating: Calibrating = Calibrating(),
    start_logits: Tensor | None = None,
) -> Tensor:
    """Return the loss of each answer token, (N,).

    ``logits`` (N, V); ``targets`` (N,); ``letters`` (N, K) with -1 where there is none;
    ``start_logits`` (N, V) of the model that training started from, for the Jeffreys divergence.
    """
    log_p = F.log_softmax(_wide(logits), dim=-1)  # (N, V)
    of_target = log_p.gather(-1, targets[:, None])[:, 0]  # (N,)
    losses = -of_target
    if calibrating.smoothing:
        even = _over_rivals(log_p, letters).mean
        losses = losses + calibrating.smoothing * (of_target - even)
    if calibrating.entropy_weight:
        losses = losses - calibrating.entropy_weight * _over_rivals(log_p, letters).entropy
    if calibrating.jeffreys_weight:
        assert start_logits is not None, "the Jeffreys divergence is one to something"
        divergence = jeffreys_divergence(logits, start_logits)
        losses = losses + calibrating.jeffreys_weight * divergence
    return losses


def jeffreys_divergence(logits: Tensor, start_logits: Tensor) -> Tensor:
    """Return J(p, q) in nats of the distributions of two sets of logits (..., V), as (...)."""
    log_p = F.log_softmax(_wide(logits), dim=-1)
    log_q = F.log_softmax(_wide(start_logits), dim=-1)
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1)


@dataclass(frozen=True)
class _Rivals:
    """What is known of the tokens that compete for a place."""

    mean: Tensor  # (N,) of their log-probabilities
    entropy: Tensor  # (N,) of their renormalised probabilities, nats


def _over_rivals(log_p: Tensor, letters: Tensor | None) -> _Rivals:
    """Over the letters of each token, or over the vocabulary where it has none."""
    mean, entropy = log_p.mean(-1), -(log_p.exp() * log_p).sum(-1)
    if letters is None or not bool((letters >= 0).any()):
        return _Rivals(mean, entropy)
    there = letters >= 0  # (N, K)
    of_letters = log_p.gather(-1, letters.clamp(min=0))  # (N, K)
    count = there.sum(-1)
    has_letters = count > 0
    letter_mean = of_letters.masked_fill(~there, 0).sum(-1) / count.clamp(min=1)
    # A row without letters would be all -inf, and its gradient no number: any finite row will do.
    masked = of_letters.masked_fill(~there & has_letters[:, None], -torch.inf)
    renormalised = F.log_softmax(masked, dim=-1)
    products = renormalised.exp() * renormalised.masked_fill(~there, 0)
    letter_entropy = -products.sum(-1)
    return _Rivals(
        torch.where(has_letters, letter_mean, mean),
        torch.where(has_letters, letter_entropy, entropy),
    )


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()
