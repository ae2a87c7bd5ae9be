"""Which tensor becomes which, on names alone."""

from __future__ import annotations

import pytest

from biomistral.merging.config import parse_config
from biomistral.merging.slices import arrange, is_whole, layered_config, num_layers


def names_of(num, stack="model.layers.", parts=("attn.w", "mlp.w")):
    layers = [f"{stack}{layer}.{part}" for layer in range(num) for part in parts]
    return ["lm_head.weight", "model.embed_tokens.weight", *layers, "model.norm.weight"]


def config_of(*slices, method="passthrough", more=""):
    """Make a configuration of slices, each a list of (model, first, end)."""
    text = "".join(
        "- sources:\n"
        + "".join(f"  - {{model: {m}, layer_range: [{a}, {b}]}}\n" for m, a, b in sources)
        for sources in slices
    )
    return parse_config(f"merge_method: {method}\n{more}slices:\n{text}")


def test_the_natural_order_is_kept_past_ten_layers():
    names = {"a": names_of(12)}
    placed, problems = arrange(config_of([("a", 0, 12)], [("a", 8, 12)]), names)
    assert problems == []
    layers = [int(p.name.split(".")[2]) for p in placed if ".layers." in p.name]
    assert layers == sorted(layers)
    assert layers[-1] == 15


def test_a_range_of_all_layers_is_the_whole_model():
    names = {"a": names_of(3)}
    assert is_whole(config_of([("a", 0, 3)]), names)
    assert not is_whole(config_of([("a", 0, 2)]), names)
    assert not is_whole(config_of([("a", 0, 3)], [("a", 0, 3)]), names)
    placed, _ = arrange(config_of([("a", 0, 3)]), names)
    assert [tensor.name for tensor in placed] == names["a"]


def test_a_whole_model_may_have_several_stacks():
    names = {"a": [*names_of(2, "text.layers."), *names_of(3, "vision.layers.")[2:-1]]}
    config = parse_config("merge_method: passthrough\nmodels: [{model: a}]")
    placed, problems = arrange(config, names)
    assert problems == []
    depth = {tensor.name: tensor.depth for tensor in placed}
    assert depth["text.layers.1.mlp.w"] == depth["vision.layers.2.mlp.w"] == 1
    assert depth["vision.layers.1.mlp.w"] == 0.5
    assert num_layers(config.slices[0], names) == 3


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ({"a": names_of(2), "b": ["lm_head.weight"]}, "b has 0 stacks of layers (none)"),
        (
            {"a": names_of(2), "b": names_of(2, "h.")},
            "the layers have different names (h. and model",
        ),
        (
            {"a": names_of(2), "b": [*names_of(2), *names_of(2, "v.layers.")]},
            "b has 2 stacks of layers (model.layers.* (2), v.layers.* (2))",
        ),
        ({"a": names_of(2), "b": names_of(1)}, "layers [0, 2] are outside b, which has 1 layers"),
    ],
)
def test_what_cannot_be_put_together_is_said(names, problem):
    placed, problems = arrange(config_of([("a", 0, 2)], [("b", 0, 2)]), names)
    assert placed == []
    assert len(problems) == 1
    assert problem in problems[0]


def test_layers_of_a_slice_are_matched_by_their_place_in_it():
    config = config_of([("a", 0, 2), ("b", 1, 3)], method="karcher")
    placed, _ = arrange(config, {"a": names_of(2), "b": names_of(3)})
    by_name = {tensor.name: tensor for tensor in placed}
    assert by_name["model.layers.1.mlp.w"].sources == (
        "model.layers.1.mlp.w",
        "model.layers.2.mlp.w",
    )
    assert by_name["model.layers.1.mlp.w"].depth == 1
    assert by_name["lm_head.weight"].sources == ("lm_head.weight", "lm_head.weight")


def test_a_tensor_that_only_one_model_has_in_a_layer_is_not_lost():
    config = config_of([("a", 0, 1), ("b", 1, 2)], method="karcher")
    names = {"a": names_of(2), "b": [*names_of(2), "model.layers.1.extra.w"]}
    placed, _ = arrange(config, names)
    assert "model.layers.0.extra.w" in {tensor.name for tensor in placed}


@pytest.mark.parametrize("key", ["num_hidden_layers", "n_layer", "num_layers"])
def test_the_config_says_the_new_number_of_layers(key):
    config, names = config_of([("a", 0, 2)], [("a", 1, 3)]), {"a": names_of(3)}
    theirs = {key: 3, "layer_types": ["x", "y", "z"], "layers_to_skip": [1], "other": [1, 2, 3]}
    changed, problems = layered_config(theirs, {"a": theirs}, config, names)
    assert problems == []
    assert changed == {**theirs, key: 4, "layer_types": ["x", "y", "y", "z"]}
    assert theirs["layer_types"] == ["x", "y", "z"]


def test_a_config_without_a_number_of_layers_is_a_problem():
    config, names = config_of([("a", 0, 2)]), {"a": names_of(3)}
    _, (problem,) = layered_config({}, {"a": {}}, config, names)
    assert problem.startswith("the config of a has no number of layers (num_hidden_layers")
