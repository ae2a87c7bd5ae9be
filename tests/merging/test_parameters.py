"""Parameters by tensor: gradients over depth, filters by name, chains of settings."""

from __future__ import annotations

import re

import numpy as np
import pytest

from biomistral.merging.layers import depths
from biomistral.merging.parameters import Entry, Setting, at, constant, resolve, unmatched, unused

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
DEPTHS = depths(NAMES)


def setting(*entries, where="t"):
    """Make a setting of (filter, values) or of values alone."""
    pairs = [entry if isinstance(entry, tuple) else (None, entry) for entry in entries]
    made = [
        Entry(tuple(values) if isinstance(values, list) else (values,), part)
        for part, values in pairs
    ]
    return Setting(where, tuple(made))


def values_of(*entries):
    return resolve([setting(*entries)], DEPTHS)[0]


def test_a_number_counts_for_all():
    assert resolve([constant(0.25)], DEPTHS)[0] == dict.fromkeys(NAMES, 0.25)


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


def test_a_gradient_of_one_number_is_that_number():
    assert values_of([0.4]) == dict.fromkeys(NAMES, 0.4)


def test_switches_and_choices_are_not_mixed_but_chosen():
    assert [at((False, True, False), depth) for depth in (0, 0.49, 0.5, 1)] == [
        False,
        False,
        True,
        False,
    ]
    assert at(("density", "none"), 0.9) == "density"
    assert at(("density", "none"), 1.0) == "none"


def test_the_first_filter_that_matches_decides():
    values = values_of(("self_attn", [0.0, 1.0]), ("layers.2", 0.2), 0.5)
    assert values["model.layers.2.self_attn.q.weight"] == 0.5  # the middle of the gradient
    assert values["model.layers.2.mlp.up.weight"] == 0.2
    assert values["model.layers.3.mlp.up.weight"] == 0.5
    assert values["lm_head.weight"] == 0.5


def test_a_star_matches_all():
    assert values_of(("*", 0.3)) == dict.fromkeys(NAMES, 0.3)


def test_what_no_filter_matches_is_left_to_the_next_level():
    chain = [setting(("mlp", 0.1)), setting(("layers.4", 0.2)), setting(0.3)]
    values, used = resolve(chain, DEPTHS)
    assert values["model.layers.4.mlp.up.weight"] == 0.1
    assert values["model.layers.4.self_attn.q.weight"] == 0.2
    assert values["model.layers.0.self_attn.q.weight"] == 0.3
    assert used == {entry for each in chain for entry in each.entries}


def test_tensors_that_no_filter_matches_are_left_out_and_named():
    chain = [setting(("self_attn", 0.2), ("mlp", 0.3), where="parameters.t")]
    values, _ = resolve(chain, DEPTHS)
    missing = [name for name in NAMES if name not in values]
    text = unmatched(chain, missing)
    assert text.startswith(
        "parameters.t: no filter matches 'model.embed_tokens.weight' and 2 more tensors;"
    )
    assert "add a last entry without a filter" in text


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ((("self_atn", 0.2), 0.3), """'self_atn' has no effect.*did you mean "self_attn"\\?"""),
        ((0.3, ("mlp", 0.2)), "'mlp' has no effect"),
        ((("self_attn", 0.3), ("self_attn.q", 0.2), 0.1), "'self_attn.q' has no effect"),
    ],
)
def test_a_filter_that_decides_on_nothing_is_a_problem(entries, problem):
    settings = [setting(*entries)]
    _, used = resolve(settings, DEPTHS)
    (found,) = unused(settings, used, NAMES)
    assert re.search(problem, found)


def test_a_filter_of_a_tensor_that_is_known_to_be_absent_is_none():
    settings = [setting(("lm_head", 0.2), 0.1)]
    names = [name for name in NAMES if name != "lm_head.weight"]
    _, used = resolve(settings, depths(names))
    assert len(unused(settings, used, names)) == 1
    assert unused(settings, used, names, absent=["lm_head.weight"]) == []
