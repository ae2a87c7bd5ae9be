"""Layers read off the names of tensors."""

from __future__ import annotations

import pytest

from biomistral.merging.layers import comes_before_layers, depth, depths, natural, num_layers, split


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("model.layers.12.mlp.up.weight", ("model.layers.", 12, ".mlp.up.weight")),
        ("transformer.h.0.attn.bias", ("transformer.h.", 0, ".attn.bias")),
        ("h.3.ln_1.weight", ("h.", 3, ".ln_1.weight")),
        ("model.layers.2.experts.7.w1.weight", ("model.layers.", 2, ".experts.7.w1.weight")),
        ("model.norm.weight", None),
        ("lm_head.weight", None),
    ],
)
def test_a_name_has_a_stack_a_number_and_a_rest(name, parts):
    assert split(name) == parts


def test_depth_runs_from_0_to_1_and_a_single_layer_is_at_the_end():
    assert [depth(layer, 5) for layer in range(5)] == [0, 0.25, 0.5, 0.75, 1]
    assert depth(0, 1) == 1


def test_each_stack_has_its_own_depth():
    names = ["vision.layers.0.a", "vision.layers.1.a", *(f"text.layers.{i}.a" for i in range(5))]
    assert num_layers(names) == {"vision.layers.": 2, "text.layers.": 5}
    assert depths(names)["vision.layers.1.a"] == 1
    assert depths(names)["text.layers.1.a"] == 0.25


def test_depth_is_found_in_the_names_of_other_architectures():
    names = ["transformer.h.0.attn.weight", "transformer.h.1.attn.weight", "transformer.wte.weight"]
    assert list(depths(names).values()) == [0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("name", "before"),
    [
        ("model.embed_tokens.weight", True),
        ("transformer.wte.weight", True),
        ("wpe.weight", True),
        ("word_embeddings_layernorm.bias", True),
        ("gpt_neox.embed_in.weight", True),
        ("embed_out.weight", False),
        ("model.norm.weight", False),
        ("transformer.ln_f.bias", False),
        ("lm_head.weight", False),
    ],
)
def test_embeddings_come_before_the_layers(name, before):
    assert comes_before_layers(name) is before


def test_numbers_in_names_sort_by_value():
    names = ["layers.10.a", "layers.2.b", "layers.2.a", "embed"]
    assert sorted(names, key=natural) == ["embed", "layers.2.a", "layers.2.b", "layers.10.a"]
