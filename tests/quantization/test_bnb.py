from __future__ import annotations

import importlib.util
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from biomistral.errors import MissingDependencyError, ModelError
from biomistral.models.checkpoints import Checkpoint
from biomistral.quantization.bnb import load_quantized, weight_errors
from biomistral.recipe.settings import BitsandbytesQuantization

LINEAR = "model.layers.0.mlp.up_proj"


def setting(bits: int, *, double: bool = False) -> BitsandbytesQuantization:
    return BitsandbytesQuantization(
        name="small", model="m", method="bitsandbytes", bits=bits, double_quantization=double
    )


def test_eight_bit_weights_are_rounded_by_row(tiny_model, tmp_path):
    pytest.importorskip("bitsandbytes")
    original = Checkpoint(tiny_model)
    load_quantized(setting(8), original).save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    weight = original.tensor(f"{LINEAR}.weight")
    largest = weight.abs().amax(dim=1)
    assert torch.allclose(stored[f"{LINEAR}.SCB"], largest, rtol=1e-3)  # by way of float16
    levels = torch.round(weight * 127 / largest[:, None])
    assert int((stored[f"{LINEAR}.weight"] - levels).abs().max()) <= 1


@pytest.mark.parametrize(("bits", "double"), [(8, False), (4, False), (4, True)])
def test_weight_errors_are_those_of_the_number_of_bits(tiny_model, bits, double):
    pytest.importorskip("bitsandbytes")
    original = Checkpoint(tiny_model)
    errors = weight_errors(load_quantized(setting(bits, double=double), original), original)
    assert len(errors) == 7
    low, high = (0.06, 0.12) if bits == 4 else (0.003, 0.015)
    assert all(low < value < high for value in errors.values())


@pytest.mark.parametrize("double", [False, True])
def test_a_forward_pass_does_not_change_what_is_saved(tiny_model, tmp_path, double):
    # bitsandbytes 0.50 rearranges weights at first use on CPUs with AVX512 for bfloat16, and
    # saving then wrote something else without a word.
    pytest.importorskip("bitsandbytes")
    model = load_quantized(setting(4, double=double), Checkpoint(tiny_model))
    model.save_pretrained(tmp_path / "before")
    with torch.no_grad():
        model(torch.arange(5, 45)[None])
    model.save_pretrained(tmp_path / "after")
    before = load_file(tmp_path / "before" / "model.safetensors")
    after = load_file(tmp_path / "after" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_missing_weight_is_not_made_up(tiny_model, tmp_path):
    pytest.importorskip("bitsandbytes")
    stored = load_file(tiny_model / "model.safetensors")
    del stored[f"{LINEAR}.weight"]
    save_file(stored, tmp_path / "model.safetensors", metadata={"format": "pt"})
    shutil.copy(tiny_model / "config.json", tmp_path)
    with pytest.raises(ModelError, match=f"lacks the weight {LINEAR}"):
        load_quantized(setting(4), Checkpoint(tmp_path))


def test_without_the_library_the_message_names_the_line_that_brings_it(tiny_model, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'biomistral\[quantization\]'"):
        load_quantized(setting(8), Checkpoint(tiny_model))
