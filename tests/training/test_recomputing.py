from __future__ import annotations

from types import SimpleNamespace

import pytest
from transformers import AutoModelForCausalLM

from biomistral.training.recomputing import recompute_activations


def test_the_layers_of_a_model_compute_again(tiny_model) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert not model.is_gradient_checkpointing
    recompute_activations(model)
    assert model.is_gradient_checkpointing


@pytest.mark.parametrize(
    "names",
    [
        ("gradient_checkpointing_enable",),
        ("activation_checkpointing_enable", "gradient_checkpointing_enable"),
    ],
)
def test_the_newer_name_is_taken_where_there_is_one(names) -> None:
    asked = []
    methods = {name: lambda given, name=name: asked.append((name, given)) for name in names}
    recompute_activations(SimpleNamespace(**methods))
    assert asked == [(names[0], {"use_reentrant": False})]
