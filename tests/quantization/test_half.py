from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from biomistral.errors import ModelError
from biomistral.models.checkpoints import Checkpoint
from biomistral.quantization import half
from biomistral.quantization.half import write_half


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_each_number_is_rounded_once(tiny_model, tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(half, "_BLOCK_ELEMENTS", 1000)
    errors = write_half(Checkpoint(tiny_model), tmp_path, dtype)
    exact, stored = (load_file(f / "model.safetensors") for f in (tiny_model, tmp_path))
    assert exact.keys() == stored.keys()
    for name, tensor in exact.items():
        assert torch.equal(stored[name], tensor.to(getattr(torch, dtype)))
    name = "model.layers.1.mlp.up_proj.weight"
    expected = float((stored[name].float() - exact[name]).norm() / exact[name].norm())
    assert errors["up_proj"][1] == pytest.approx(expected, rel=1e-4)
    assert len(errors["up_proj"]) == 2


def test_a_model_that_is_half_already_has_no_error(tiny_model, tmp_path):
    for name in ("once", "twice"):
        (tmp_path / name).mkdir()
    (tmp_path / "once" / "config.json").write_text((tiny_model / "config.json").read_text())
    write_half(Checkpoint(tiny_model), tmp_path / "once", "bfloat16")
    errors = write_half(Checkpoint(tmp_path / "once"), tmp_path / "twice", "bfloat16")
    assert {value for found in errors.values() for value in found} == {0.0}


def test_infinity_is_refused(make_model, tmp_path):
    checkpoint = Checkpoint(make_model(0))
    checkpoint.tensor = lambda name: torch.full(checkpoint.tensors[name].shape, float("inf"))
    with pytest.raises(ModelError, match="not finite, or too large for bfloat16"):
        write_half(checkpoint, tmp_path, "bfloat16")
