"""Parameters by tensor: gradients over depth and filters by name."""

from __future__ import annotations

import numpy as np
import pytest

from biomistral.merging.parameters import depths, resolve
from biomistral.recipe.settings import FilteredValue

NAMES = [
    "model.embed_tokens.weight",
    *(
        f"model.layers.{layer}.{part}.weight"
        for layer in range(5)
        for part in ("mlp.up", "self_attn.q")
    ),
    "model.norm.weight",
    "lm_head.weight",
]


def values_of(parameter):
    values, problems = resolve(parameter, NAMES)
    assert problems == []
    return values


def entry(value, part=None):
    return FilteredValue(filter=part, value=value)


def test_a_number_counts_for_all():
    assert values_of(0.25) == dict.fromkeys(NAMES, 0.25)


def test_a_gradient_runs_from_the_first_layer_to_the_last():
    values = values_of([0.0, 0.5, 0.3, 0.7, 1.0])  # as many numbers as layers
    assert [values[f"model.layers.{i}.mlp.up.weight"] for i in range(5)] == [0, 0.5, 0.3, 0.7, 1]


@pytest.mark.parametrize("numbers", [[0.2, 0.9], [0.1, 0.9, 0.4], [1, 0, 1, 0, 1, 0, 1]])
def test_a_gradient_is_linear_between_its_numbers(numbers):
    values = values_of([float(number) for number in numbers])
    knots = np.linspace(0, 1, len(numbers))
    for layer in range(5):
        expected = np.interp(layer / 4, knots, numbers)
        assert values[f"model.layers.{layer}.self_attn.q.weight"] == pytest.approx(expected)


def test_outside_the_stack_a_gradient_gives_its_first_number():
    values = values_of([0.1, 0.9])
    for name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"):
        assert values[name] == 0.1


def test_a_single_layer_is_at_the_end_of_a_gradient():
    values, _ = resolve([0.1, 0.9], ["model.layers.0.mlp.up.weight"])
    assert values == {"model.layers.0.mlp.up.weight": 0.9}


def test_a_gradient_of_one_number_is_that_number():
    assert values_of([0.4]) == dict.fromkeys(NAMES, 0.4)


def test_the_first_filter_that_matches_decides():
    values = values_of([entry([0.0, 1.0], "self_attn"), entry(0.2, "layers.2"), entry(0.5)])
    assert values["model.layers.2.self_attn.q.weight"] == 0.5  # the middle of the gradient
    assert values["model.layers.2.mlp.up.weight"] == 0.2
    assert values["model.layers.3.mlp.up.weight"] == 0.5
    assert values["lm_head.weight"] == 0.5


def test_a_star_matches_all():
    assert values_of([entry(0.3, "*")]) == dict.fromkeys(NAMES, 0.3)


def test_a_tensor_that_no_filter_matches_is_a_problem():
    _, problems = resolve([entry(0.2, "self_attn"), entry(0.3, "mlp")], NAMES)
    (problem,) = problems
    assert problem.startswith("no filter matches 'model.embed_tokens.weight' and 2 more tensors;")
    assert "add a last entry without a filter" in problem


def test_a_misspelt_filter_is_a_problem_with_a_suggestion():
    _, problems = resolve([entry(0.2, "self_atn"), entry(0.3)], NAMES)
    assert len(problems) == 1
    assert "'self_atn' has no effect" in problems[0]
    assert 'did you mean "self_attn"?' in problems[0]


def test_a_filter_that_an_earlier_one_hides_is_a_problem():
    _, problems = resolve([entry(0.3), entry(0.2, "mlp")], NAMES)
    assert "'mlp' has no effect" in problems[0]


@pytest.mark.parametrize("parameter", [[], [FilteredValue(value=[])]])
def test_an_empty_list_is_a_problem(parameter):
    _, problems = resolve(parameter, NAMES)
    assert problems == ["a list is empty; give a number or a list of numbers"]


def test_depth_is_found_in_the_names_of_other_architectures():
    names = ["transformer.h.0.attn.weight", "transformer.h.1.attn.weight", "transformer.wte.weight"]
    assert list(depths(names).values()) == [0.0, 1.0, 0.0]
