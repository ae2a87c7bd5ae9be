"""Numbers of a merge by tensor, on names alone."""

from __future__ import annotations

import pytest

from biomistral.merging.config import parse_config
from biomistral.merging.numbers import settle, without_effect
from biomistral.merging.slices import arrange, num_layers

NAMES = [
    "model.embed_tokens.weight",
    *(f"model.layers.{layer}.{part}.weight" for layer in range(3) for part in ("attn", "mlp")),
    "model.norm.weight",
]


def settled(text, absent=()):
    config = parse_config(text)
    names = dict.fromkeys(config.references, NAMES)
    placed, _ = arrange(config, names)
    lengths = {place.where: num_layers(place, names) for place in config.slices}
    return config, placed, settle(config, placed, lengths, absent)


def ties(parameters, second="", method="ties"):
    return settled(
        f"merge_method: {method}\nbase_model: base\nmodels:\n- model: a\n  parameters: {parameters}\n"
        + (f"- {{model: b, parameters: {second}}}\n" if second else "")
    )


def test_defaults_fill_what_is_not_said():
    _, _, found = ties("{weight: 2}")
    assert found.options["model.norm.weight"] == {"normalize": True, "scale": 1.0}
    assert found.of_models["model.norm.weight"] == [{"weight": 2.0, "density": 1.0}]
    assert found.problems == found.warnings == []


def test_models_are_in_the_order_of_the_configuration():
    _, _, found = ties("{weight: 2}", "{weight: [1, 3]}")
    weights = [[n["weight"] for n in found.of_models[name]] for name in NAMES]
    assert weights[0] == [2, 1]
    assert weights[3] == [2, 2]
    assert weights[5] == [2, 3]


def test_a_filter_that_decides_for_one_of_two_models_has_an_effect():
    _, _, found = settled(
        "merge_method: linear\nmodels:\n"
        "- {model: a, parameters: {weight: 1}}\n- model: b\n"
        "parameters: {weight: [{filter: mlp, value: 2}, {value: 1}]}"
    )
    assert found.problems == []


def test_a_filter_of_an_absent_tensor_is_no_problem():
    text = "{weight: [{filter: lm_head, value: 2}, {value: 1}]}"
    assert len(ties(text)[2].problems) == 1
    config = f"merge_method: ties\nbase_model: base\nmodels: [{{model: a, parameters: {text}}}]"
    assert settled(config, absent=["lm_head.weight"])[2].problems == []


def test_weights_that_cancel_in_one_tensor_only_are_found():
    text = (
        "merge_method: linear\nmodels:\n- {model: a, parameters: {weight: 1}}\n"
        "- {model: b, parameters: {weight: [{filter: layers.1.mlp, value: -1}, {value: 1}]}}\n"
    )
    (problem,) = settled(text)[2].problems
    assert problem.startswith("model.layers.1.mlp.weight: the weights sum to 0")
    assert settled(f"{text}parameters: {{normalize: false}}")[2].problems == []


@pytest.mark.parametrize(
    ("density", "epsilon", "allowed"),
    [(0.5, 0.2, True), (0.9, 0.1, False), (0.1, 0.15, False), (1, 0.4, True), (0.5, 0, True)],
)
def test_chances_of_della_are_chances(density, epsilon, allowed):
    text = f"{{weight: 1, density: {density}, epsilon: {epsilon}}}"
    assert (ties(text, method="della")[2].problems == []) is allowed


@pytest.mark.parametrize(
    ("parameters", "second", "expected"),
    [
        ("{weight: 0.5}", "", ["the weight of a has no effect"]),
        ("{weight: 1}", "", []),
        ("{weight: 0.5}", "{weight: 1}", []),
    ],
)
def test_a_weight_alone_under_normalize_has_no_effect(parameters, second, expected):
    warnings = list(without_effect(*ties(parameters, second)))
    assert len(warnings) == len(expected)
    assert all(w.startswith(e) for w, e in zip(warnings, expected, strict=True))


def test_a_weight_alone_in_a_mean_has_no_effect():
    text = "merge_method: linear\nmodels: [{model: a, parameters: {weight: 2}}]"
    (warning,) = without_effect(*settled(text))
    assert "the weight of a has no effect" in warning
