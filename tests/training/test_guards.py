"""A run is stopped by what is wrong, and not by what only scatters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from biomistral.errors import ModelError
from biomistral.training import guards


def test_a_loss_that_is_not_a_number_is_named_with_its_step_and_what_to_do():
    guards.check_number("loss", 5.0, 7)
    with pytest.raises(ModelError, match=r"training: the loss is inf at step 7; lower learning_ra"):
        guards.check_number("loss", float("inf"), 7)
    with pytest.raises(ModelError, match=r"loss is nan at step 1; the model that .*; see there"):
        guards.check_number("loss", float("nan"), 1, "; see there")


def test_weights_that_are_no_numbers_are_named(tiny_model):
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    guards.check_weights(model)
    with torch.no_grad():
        model.model.norm.weight[3] = torch.nan
    assert "model.norm.weight" in load_file(tiny_model / "model.safetensors")
    with pytest.raises(ModelError, match=r"the weight model\.norm\.weight is not a number after"):
        guards.check_weights(model)
    model.model.norm.requires_grad_(False)
    guards.check_weights(model)  # what is not trained is not changed


def course(*means: float, scatter: float = 0.2, steps: int = 40) -> list[float]:
    rng = np.random.default_rng(0)
    return [float(mean + scatter * rng.standard_normal()) for mean in means for _ in range(steps)]


@pytest.mark.parametrize(
    ("losses", "verdict"),
    [
        (course(2.0, 1.8, 1.7), False),
        (course(2.0, 2.3, scatter=0.4), False),  # a re-warming
        (course(2.0, 4.0), True),
        (course(10.4, 7.0, 6.0), False),
        (course(1.8, 3.1), True),
        ([1.8, 5.0, *[7.0] * 20], True),  # at once, so that even the first mean is high
        ([1.8, 2.0], False),
        ([], False),
    ],
)
def test_an_explosion_is_told_from_scatter(losses, verdict):
    assert guards.has_exploded(losses, 1.0) is verdict


def test_losses_of_single_short_rows_may_scatter_widely():
    rng = np.random.default_rng(1)
    losses = (3 + 0.8 * rng.standard_normal(200)).tolist()
    assert not any(guards.has_exploded(losses[:n], 1.0) for n in range(200))


@pytest.mark.parametrize(
    ("rate", "parameters", "odd"),
    [
        (2e-5, 7_241_732_096, ""),
        (3e-3, 800_000, ""),
        (6e-4, 125_000_000, ""),
        (2e-2, 7_241_732_096, "likely to make the loss explode"),
        (0.5, 800_000, "likely to make the loss explode"),
        (2e-9, 7_241_732_096, "likely to change nothing"),
    ],
)
def test_a_learning_rate_of_the_wrong_order_is_odd(rate, parameters, odd):
    text = guards.odd_rate(rate, parameters)
    assert odd in text
    assert bool(odd) == bool(text)
