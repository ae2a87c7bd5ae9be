"""What stops a training run, and what is only odd about it. Pure functions and their messages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import torch

from biomistral.errors import ModelError

_WINDOW_STEPS = 20  # loss is compared over as many steps, where there are so many
# Peak rates in use: 6e-4 for 125 million parameters, 1.2e-4 to 3e-4 for 7 billion (GPT-3, Llama).
_USUAL_RATE, _USUAL_PARAMETERS, _USUAL_POWER = 6e-4, 125e6, 0.35
_TOO_HIGH, _TOO_LOW = 10, 1 / 3000  # times the usual rate
_CALMER = (
    "lower learning_rate or max_gradient_norm, or use precision: float32 or mixed, and run again"
)


def check_number(what: str, value: float, step: int, see: str = "") -> None:
    """Raise ``ModelError`` if a loss is not a number; ``see`` says where more is written."""
    if math.isfinite(value):
        return
    advice = (
        "the model that training starts from is broken, check it"
        if step <= 1  # the loss of step 1 is taken before any change
        else _CALMER
    )
    raise ModelError(f"training: the {what} is {value} at step {step}; {advice}{see}")


def has_exploded(losses: Sequence[float], largest_rise: float) -> bool:
    """Whether the last losses lie more than ``largest_rise`` nats above the first ones.

    Means over up to 20 steps are compared; over fewer, more is allowed, for they scatter more.
    """
    window = min(_WINDOW_STEPS, len(losses) // 2)
    if window < 3:
        return False
    # The very first loss is of the untouched model, whatever happened in the steps after it.
    rise = fmean(losses[-window:]) - min(losses[0], fmean(losses[:window]))
    return rise > largest_rise * (1 + 5 / window)


def explosion(losses: Sequence[float], step: int, see: str = "") -> ModelError:
    """The error of a run whose loss has exploded."""
    return ModelError(
        f"training: the loss rises, from {losses[0]:.3f} to {losses[-1]:.3f} at step "
        f"{step}; {_CALMER} (largest_loss_rise says when a run is stopped){see}"
    )


def check_weights(model: Any) -> None:
    """Raise ``ModelError`` if the last step made trained weights something else than numbers."""
    check_tensors({n: p for n, p in model.named_parameters() if p.requires_grad})


def check_tensors(weights: Mapping[str, torch.Tensor]) -> None:
    """Do the same for weights by name, as they are gathered of a sharded model."""
    for name, weight in weights.items():
        if not bool(torch.isfinite(weight).all()):
            raise ModelError(
                f"training: the weight {name} is not a number after the last step; {_CALMER}"
            )


def odd_rate(rate: float, num_parameters: int) -> str:
    """What is odd about a peak learning rate for so many trained parameters, or ``""``.

    Usual is 6e-4 x (125 million / parameters)^0.35; ten times more, or 3,000 times less, is odd.
    """
    usual = _USUAL_RATE * (_USUAL_PARAMETERS / num_parameters) ** _USUAL_POWER
    if rate > _TOO_HIGH * usual:
        what = "is likely to make the loss explode"
    elif rate < _TOO_LOW * usual:
        what = "is likely to change nothing"
    else:
        return ""
    return (
        f"learning_rate {rate:g} {what}: peak rates for {num_parameters:,} trained parameters are "
        f"around {usual:.0e}, for continued training up to a hundred times less"
    )
