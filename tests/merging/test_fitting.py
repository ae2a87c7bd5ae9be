"""Whether models fit: on small folders with headers and configs of their own."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from biomistral.errors import ModelError
from biomistral.merging.config import parse_config
from biomistral.merging.fitting import check_fit, check_mergeable, doubts, left_out
from biomistral.merging.slices import arrange
from biomistral.models.checkpoints import Checkpoint

SHAPES = {
    "lm_head.weight": (6, 2),
    "model.embed_tokens.weight": (6, 2),
    "model.layers.0.mlp.weight": (3, 2),
    "model.norm.weight": (2,),
}
CONFIG = {"model_type": "llama", "hidden_size": 2, "vocab_size": 6, "tie_word_embeddings": False}


@pytest.fixture
def make(tmp_path):
    """Return a function that writes a checkpoint and opens it; None takes something out."""

    def make(name, shapes=None, dtype=torch.float32, **config):
        folder = tmp_path / name
        folder.mkdir()
        shapes = {**SHAPES, **(shapes or {})}
        tensors = {n: torch.zeros(shape, dtype=dtype) for n, shape in shapes.items() if shape}
        save_file(tensors, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
        return Checkpoint(folder)

    return make


def check(models, free=()):
    listed = ", ".join(f"{{model: {name}}}" for name in models)
    config = parse_config(f"merge_method: karcher\nmodels: [{listed}]")
    placed, _ = arrange(config, {name: list(c.tensors) for name, c in models.items()})
    check_fit(models, config.donor, placed, free)


def test_models_of_one_kind_fit(make):
    check({"a": make("a"), "b": make("b"), "c": make("c", dtype=torch.bfloat16)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shapes": {"model.norm.weight": (3,)}}, r"model\.norm\.weight is \[3\] instead of \[2\]"),
        (
            {"shapes": {"model.norm.weight": None}},
            r"model\.norm\.weight is missing instead of \[2\]",
        ),
        ({"shapes": {"more.weight": (1,)}}, r"more\.weight is \[1\] instead of missing"),
        ({"model_type": "gemma"}, r"model_type is 'gemma' instead of 'llama'"),
    ],
)
def test_the_difference_and_both_models_are_named(make, changes, message):
    models = {"a": make("a"), "b": make("b"), "c": make("c", **changes)}
    with pytest.raises(ModelError, match=rf"/c: does not fit .*/a: {message}.*name models of one"):
        check(models)


def test_no_more_than_four_differences_are_named(make):
    shapes = {f"extra{index}.weight": (1,) for index in range(7)}
    with pytest.raises(ModelError, match="and 3 more differences"):
        check({"a": make("a"), "b": make("b", shapes)})


def test_only_a_vocabulary_that_differs_has_its_own_remedy(make):
    shapes = {"lm_head.weight": (8, 2), "model.embed_tokens.weight": (8, 2)}
    models = {"a": make("a"), "b": make("b", shapes, vocab_size=8)}
    with pytest.raises(ModelError, match="only the vocabularies differ"):
        check(models)
    check(models, free={"vocab_size", *shapes})  # the rows follow the tokenizers


def test_free_rows_must_still_be_as_wide(make):
    shapes = {"lm_head.weight": (8, 3)}
    with pytest.raises(ModelError, match=r"lm_head\.weight is"):
        check({"a": make("a"), "b": make("b", shapes)}, free={"lm_head.weight"})


@pytest.mark.parametrize("tied", [True, None])
def test_tying_that_differs_has_its_own_remedy(make, tied):
    config = {} if tied is None else {"tie_word_embeddings": tied}
    models = {"a": make("a"), "b": make("b", {"lm_head.weight": None}, **config)}
    with pytest.raises(ModelError, match="only the tying of lm_head"):
        check(models)


def test_heads_that_are_tied_are_found_if_the_config_says_so(make):
    models = {"a": make("a", tie_word_embeddings=True), "b": make("b", {"lm_head.weight": None})}
    assert left_out(models, "a") == {"a": ["lm_head.weight"]}
    assert left_out(models, "b") == {}


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "transformer.h.0.attn.bias",
        "transformer.h.0.attn.masked_bias",
        "gpt_neox.layers.0.attention.bias",
    ],
)
def test_buffers_of_old_files_are_left_out_of_any_type(make, name):
    checkpoint = make("a", {name: (3,)}, dtype=torch.float32)
    assert left_out({"a": checkpoint}, "a") == {"a": [name]}
    parameter = name.replace(".bias", ".dense.bias").replace("inv_freq", "weight")
    if parameter != name:
        assert left_out({"a": make("b", {parameter: (3,)})}, "a") == {}


def test_what_is_no_float_or_quantized_is_not_merged(make):
    with pytest.raises(ModelError, match=r"lm_head\.weight is of type int8"):
        check_mergeable(make("a", dtype=torch.int8))
    with pytest.raises(ModelError, match="is quantized"):
        check_mergeable(make("b", quantization_config={"bits": 4}))


def test_rotary_frequencies_are_compared_in_both_forms(make):
    models = {
        "a": make("a", rope_theta=1e4),
        "b": make("b", rope_parameters={"rope_theta": 1e4}),
        "c": make("c", rope_parameters={"rope_theta": 1e6}),
        "d": make("d"),
    }
    (doubt,) = doubts(models, "a")
    assert doubt.startswith("c was trained with rope_theta 1e+06, a with 10000")
