from __future__ import annotations

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
)

from biomistral.errors import ModelError
from biomistral.models.awq import PackedLinear
from biomistral.quantization.decoder import (
    LINEARS,
    Errors,
    check_supported,
    quantize_layer,
    statistics_of,
)

GROUP_SIZE = 16


def load(folder) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def check(model: torch.nn.Module, group_size: int) -> None:
    check_supported(model.config, model.model.layers, group_size)


@pytest.mark.parametrize("layout", ["gemm", "gemv"])
def test_layers_are_packed_in_the_layout_asked_for(make_model, layout):
    model = load(make_model(0))
    layer, errors = model.model.layers[1], Errors()
    with torch.no_grad(), statistics_of(layer, GROUP_SIZE) as statistics:
        model(torch.arange(5, 69)[None])
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    tensors = quantize_layer(layer, statistics, GROUP_SIZE, errors, layout)
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    name = "mlp.gate_proj"  # 64 inputs, 128 outputs
    packed = {part: tensors[f"{name}.{part}"] for part in ("qweight", "qzeros", "scales")}
    shape = (64, 16) if layout == "gemm" else (128, 8)
    assert packed["qweight"].shape == shape
    weight = PackedLinear(**packed, layout=layout, group_size=GROUP_SIZE).weight()
    norm = "post_attention_layernorm.weight"
    scale = before[norm] / tensors[norm]
    difference = (weight / scale - before[f"{name}.weight"]).norm()
    assert float(difference / before[f"{name}.weight"].norm()) < 0.15
    assert set(errors.weight) == {linear.rpartition(".")[2] for linear in LINEARS}


def test_statistics_stop_being_gathered(make_model):
    model = load(make_model(0))
    with torch.no_grad():
        with statistics_of(model.model.layers[0], GROUP_SIZE) as statistics:
            model(torch.arange(5, 25)[None])
        model(torch.arange(5, 25)[None])
    assert {seen.num_tokens for seen in statistics.values()} == {20}


def test_errors_of_layers_are_put_together():
    one, other = Errors(), Errors()
    one.note("self_attn.q_proj", 0.1, 0.2)
    other.note("self_attn.q_proj", 0.3, 0.4)
    one.extend({"weight": other.weight, "output": other.output})
    assert one.means() == {
        "weight": {"q_proj": pytest.approx(0.2)},
        "output": {"q_proj": pytest.approx(0.3)},
    }


def test_other_architectures_are_refused_with_what_is_supported():
    model = GPT2LMHeadModel(GPT2Config(vocab_size=10, n_positions=8, n_embd=8, n_layer=1, n_head=1))
    with pytest.raises(ModelError, match="type gpt2: AWQ is known here for llama, mistral, qwen2"):
        check_supported(model.config, [], GROUP_SIZE)


def test_layers_of_several_kinds_are_refused(make_model):
    config = MistralConfig()
    config.layer_types = ["full_attention", "sliding_attention"]
    with pytest.raises(ModelError, match="layers of one kind"):
        check_supported(config, load(make_model(0)).model.layers, GROUP_SIZE)


def test_widths_that_cannot_be_grouped_are_refused_with_sizes_that_fit(make_model):
    model = load(make_model(0))
    check(model, 64)
    with pytest.raises(
        ModelError, match=r"q_proj: its 64 inputs .* group_size 128; .*\[64, 32, 16, 8\]"
    ):
        check(model, 128)


def test_outputs_that_do_not_fill_an_int32_are_refused(make_model):
    model = load(make_model(0, num_attention_heads=16, num_key_value_heads=1))
    with pytest.raises(ModelError, match="k_proj: its 4 outputs are not a multiple of 8"):
        check(model, GROUP_SIZE)
