"""Models that are known by name have the sizes that they are named after."""

from __future__ import annotations

import pytest

from biomistral.training.known_shapes import shape_by_name


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # As their makers and the hub's safetensors index say.
        ("mistralai/Mistral-7B-Instruct-v0.1", 7_241_732_096),
        ("mistralai/mistral-7b-v0.3", 7_248_023_552),
        ("BioMistral/BioMistral-7B", 7_241_732_096),
        ("meta-llama/Llama-2-7b-hf", 6_738_415_616),
    ],
)
def test_parameters_are_those_published(name, parameters):
    shape = shape_by_name(name)
    assert shape is not None
    assert shape.num_parameters == parameters


def test_of_others_nothing_is_said():
    assert shape_by_name("owner/other") is None
