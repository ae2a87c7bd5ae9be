from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from biomistral.errors import ModelError
from biomistral.models.awq import (
    PLAIN_ORDER,
    PackedLinear,
    awq_config,
    load_awq_model,
    pack,
    pack_linear,
    unpack,
    zeros_width,
)

GROUP_SIZE = 32


def test_eight_levels_make_the_int32_worked_out_by_hand():
    # Columns 0..7 hold 1..8. Nibbles from the lowest: columns 0 2 4 6 1 3 5 7, so 1 3 5 7 2 4 6 8.
    packed = pack(torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8]]))
    assert packed.dtype == torch.int32
    assert packed.tolist() == [[0x86427531 - 2**32]]  # the 8 on top sets the sign bit


def test_gemv_holds_eight_levels_in_plain_order():
    packed = pack(torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8]]), PLAIN_ORDER)
    assert packed.tolist() == [[0x87654321 - 2**32]]


@pytest.mark.parametrize(
    ("num_inputs", "num_groups", "words"),
    # By hand: 4096 / 128 = 32 groups fill 4 words; 11008 / 128 = 86 groups need 11; groups of 64
    # come in pairs of words, of 32 in fours.
    [(4096, 32, 4), (11008, 86, 11), (192, 3, 2), (160, 5, 4), (64, 4, 8), (256, 1, 1)],
)
def test_words_of_zero_points_of_gemv(num_inputs, num_groups, words):
    assert zeros_width(num_inputs, num_groups) == words


def test_gemv_refuses_groups_its_kernels_do_not_know():
    with pytest.raises(ModelError, match=r"group_size 8: the gemv layout knows 16, 32, 64, and"):
        zeros_width(64, 8)


@pytest.mark.parametrize("group", [16, 32, 64, 128])
def test_gemv_and_gemm_stand_for_the_same_weight(group):
    generator = torch.Generator().manual_seed(2)
    outputs, inputs = 24, 3 * 128
    levels = torch.randint(0, 16, (outputs, inputs), generator=generator, dtype=torch.uint8)
    zeros = torch.randint(0, 16, (outputs, inputs // group), generator=generator)
    scales = torch.rand(outputs, inputs // group, generator=generator).half()
    found = {
        layout: PackedLinear(
            **pack_linear(levels, zeros, scales, layout), layout=layout, group_size=group
        )
        for layout in ("gemm", "gemv")
    }
    assert found["gemm"].qweight.shape == (inputs, outputs // 8)
    assert found["gemv"].qweight.shape == (outputs, inputs // 8)
    assert found["gemv"].scales.shape[1] == 8 * found["gemv"].qzeros.shape[1]
    assert torch.equal(found["gemm"].weight(), found["gemv"].weight())


def test_fifteen_everywhere_is_minus_one():
    assert pack(torch.full((2, 16), 15)).tolist() == [[-1, -1], [-1, -1]]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_unpacking_undoes_packing(rows, words, seed):
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randint(0, 16, (rows, 8 * words), generator=generator, dtype=torch.uint8)
    assert torch.equal(unpack(pack(levels)), levels)


def test_weight_is_level_minus_zero_times_scale():
    generator = torch.Generator().manual_seed(1)
    inputs, outputs, group = 6, 8, 3
    levels = torch.randint(0, 16, (inputs, outputs), generator=generator)
    zeros = torch.randint(0, 16, (2, outputs), generator=generator)
    scales = torch.rand(2, outputs, generator=generator).half()
    weight = PackedLinear(pack(levels), pack(zeros), scales).weight()
    for n in range(outputs):
        for k in range(inputs):
            expected = (int(levels[k, n]) - int(zeros[k // group, n])) * float(
                scales[k // group, n]
            )
            assert float(weight[n, k]) == pytest.approx(expected, abs=1e-6)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tiny_model) -> tuple[Path, dict[str, torch.Tensor]]:
    """An awq checkpoint with random levels, and the plain weights worked out on another way."""
    folder = tmp_path_factory.mktemp("awq")
    generator = torch.Generator().manual_seed(0)
    plain = load_file(tiny_model / "model.safetensors")
    stored = {}
    for name, tensor in plain.items():
        if "_proj" not in name:
            stored[name] = plain[name] = tensor.half()
            continue
        outputs, inputs = tensor.shape
        groups = inputs // GROUP_SIZE
        levels = torch.randint(0, 16, (outputs, inputs), generator=generator)
        zeros = torch.randint(5, 11, (outputs, groups), generator=generator)
        scales = (torch.rand(outputs, groups, generator=generator) * 0.01 + 0.001).half()
        linear = name.removesuffix(".weight")
        stored[f"{linear}.qweight"] = pack(levels.T)
        stored[f"{linear}.qzeros"] = pack(zeros.T)
        stored[f"{linear}.scales"] = scales.T.contiguous()
        by_group = levels.view(outputs, groups, GROUP_SIZE) - zeros[:, :, None]
        plain[name] = (by_group * scales[:, :, None].double()).view(outputs, inputs)
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((tiny_model / "config.json").read_text())
    config["quantization_config"] = awq_config(GROUP_SIZE)
    (folder / "config.json").write_text(json.dumps(config))
    return folder, plain


def test_loaded_model_gives_the_logits_of_the_hand_dequantized_one(checkpoint, tiny_model):
    folder, plain = checkpoint
    by_hand = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    by_hand.load_state_dict(plain)
    loaded = load_awq_model(folder, "float32")
    ids = torch.arange(5, 45)[None]
    with torch.no_grad():
        assert torch.allclose(loaded(ids).logits, by_hand(ids).logits, atol=1e-5)
    assert not loaded.training


def test_loaded_model_has_the_precision_asked_for_and_saves_as_a_plain_model(checkpoint, tmp_path):
    loaded = load_awq_model(checkpoint[0], "bfloat16")
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    loaded.save_pretrained(tmp_path)
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
    AutoModelForCausalLM.from_pretrained(tmp_path)


def altered(checkpoint, folder: Path, config=None, tensors=None) -> Path:
    source = checkpoint[0]
    values = json.loads((source / "config.json").read_text())
    values["quantization_config"] |= config or {}
    (folder / "config.json").write_text(json.dumps(values))
    stored = {**load_file(source / "model.safetensors"), **(tensors or {})}
    kept = {name: tensor for name, tensor in stored.items() if tensor is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"quant_method": "gptq"}, "quant_method gptq"),
        ({"bits": 8}, "bits 8"),
        ({"version": "marlin"}, "version marlin"),
    ],
)
def test_other_formats_are_refused_by_name(checkpoint, tmp_path, config, message):
    with pytest.raises(ModelError, match=message):
        load_awq_model(altered(checkpoint, tmp_path, config))


def test_a_plain_checkpoint_is_refused(tiny_model):
    with pytest.raises(ModelError, match="quant_method None"):
        load_awq_model(tiny_model)


LINEAR = "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({f"{LINEAR}.scales": None}, "q_proj has qweight, qzeros but needs"),
        ({f"{LINEAR}.qweight": torch.zeros(64, 32, dtype=torch.uint8)}, "saved after use"),
        ({"model.norm.weight": torch.ones(8)}, "the first is model.norm.weight"),
        ({"model.norm.weight": None}, "the first is model.norm.weight"),
        ({"model.extra.weight": torch.zeros(1)}, "the first is model.extra.weight"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(checkpoint, tmp_path, tensors, message):
    with pytest.raises(ModelError, match=message):
        load_awq_model(altered(checkpoint, tmp_path, tensors=tensors))
