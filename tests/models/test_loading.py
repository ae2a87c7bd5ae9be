from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from biomistral.errors import InputError, MissingDependencyError, ModelError
from biomistral.models import loading
from biomistral.models.hybrid import HybridLinear
from biomistral.models.loading import (
    leave_weights_as_stored,
    load_model,
    load_tokenizer,
    num_weights,
    pick_device,
    quiet_transformers,
)

CPU = torch.device("cpu")


@pytest.fixture
def copy(tiny_model, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "copy"))


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_a_model_comes_ready_to_use(tiny_model, precision):
    model = load_model(tiny_model, precision=precision, device=CPU)
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, precision)}
    assert (
        model.model.rotary_emb.inv_freq.dtype == torch.float32
    )  # rounded, it would blur positions


def test_loading_prints_nothing(tiny_model, capfd):
    load_model(tiny_model, device=CPU)
    load_tokenizer(tiny_model)
    assert capfd.readouterr() == ("", "")


def test_quiet_is_over_afterwards():
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    with quiet_transformers():
        assert not logging.is_progress_bar_enabled()
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_the_device_is_one_that_is_there():
    assert pick_device().type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("load", [load_model, load_tokenizer])
def test_a_missing_folder_is_named(load, tmp_path):
    with pytest.raises(InputError, match=r"gone: there is no such folder; name .* owner/name"):
        load(tmp_path / "gone")


@pytest.mark.parametrize("load", [load_model, load_tokenizer])
def test_a_file_is_no_checkpoint(load, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file: is a file; name the folder"):
        load(tmp_path / "file")


def test_a_hub_model_out_of_reach_is_explained():
    with pytest.raises(ModelError, match=r"nobody/nothing: is no folder here.*or name a folder"):
        load_model("nobody/nothing")


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(ModelError, match="config"):
        load_model(tmp_path)


def test_pickled_weights_are_refused_with_a_remedy(copy):
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"pickled.*save_pretrained"):
        load_model(copy)


def test_no_weight_is_made_up(copy):
    weights = load_file(copy / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks the weight 'model.norm.weight' \(1 such"):
        load_model(copy)


def test_a_weight_of_another_shape_is_refused(copy):
    change_config(copy, intermediate_size=96)
    with pytest.raises(ModelError, match=r"weight 'model.layers.0.mlp.* in another shape"):
        load_model(copy)


def test_an_unknown_architecture_is_refused(copy):
    change_config(copy, model_type="zork")
    with pytest.raises(ModelError, match=r"cannot be loaded as a causal language model.*zork"):
        load_model(copy)


def test_a_quantized_form_without_its_library_names_it(copy):
    pytest.importorskip("transformers")
    change_config(copy, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(MissingDependencyError, match=r"needs a library which is not installed"):
        load_model(copy, device=CPU)


def test_bitsandbytes_is_asked_for_by_its_extra(copy, monkeypatch):
    change_config(copy, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    monkeypatch.setattr("biomistral.errors.importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'biomistral\[quantization\]'"):
        load_model(copy, device=CPU)


def test_four_bit_weights_survive_a_forward_pass_on_the_cpu(tiny_model, tmp_path):
    pytest.importorskip("bitsandbytes")
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    with quiet_transformers():
        stored = AutoModelForCausalLM.from_pretrained(
            tiny_model, quantization_config=config, dtype=torch.bfloat16, device_map={"": "cpu"}
        )
        stored.save_pretrained(tmp_path / "nf4")
    model = load_model(tmp_path / "nf4", device=CPU)
    names = [type(module).__name__ for module in model.modules()]
    assert "Linear4bit" in names
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        first = model(torch.tensor([[1, 300, 301]])).logits
        second = model(torch.tensor([[1, 300, 301]])).logits
    assert torch.equal(first, second)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("double", [False, True])
def test_gradients_through_four_bit_weights_survive_an_evaluation_on_the_cpu(tiny_model, double):
    # bitsandbytes 0.50 repacks weights in an evaluating forward pass; the training pass after it
    # then went through a kernel without a gradient, while the loss looked as it should.
    pytest.importorskip("bitsandbytes")
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=double,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    ids = torch.tensor([[1, 300, 301, 17, 5, 44]])

    def gradient(*, after_evaluating: bool) -> torch.Tensor:
        with quiet_transformers():
            model = AutoModelForCausalLM.from_pretrained(
                tiny_model, quantization_config=config, dtype=torch.bfloat16, device_map={"": "cpu"}
            )
        leave_weights_as_stored(model)
        if after_evaluating:
            with torch.no_grad():
                model.eval()(ids)
        model.train()(ids, labels=ids).loss.backward()
        return model.model.embed_tokens.weight.grad.float()

    plain, evaluated = gradient(after_evaluating=False), gradient(after_evaluating=True)
    assert float(plain.norm()) > 0
    assert torch.equal(evaluated, plain)


def test_awq_without_its_library_goes_to_our_own_reader(copy, monkeypatch):
    awq = pytest.importorskip("biomistral.models.awq")
    change_config(copy, quantization_config={"quant_method": "awq", "bits": 4})
    calls = []

    def reader(folder: Path, precision: str) -> torch.nn.Module:
        calls.append((folder, precision))
        return torch.nn.Linear(1, 1)

    monkeypatch.setattr(awq, "load_awq_model", reader)
    monkeypatch.setattr(loading.importlib.util, "find_spec", lambda name: None)
    load_model(copy, precision="float32", device=CPU)
    assert calls == [(copy, "float32")]


def test_gemv_goes_to_our_own_reader_on_a_cpu_even_beside_the_library(copy, monkeypatch):
    # The library's kernels for it need a GPU.
    from biomistral.models import awq

    def load_with(version: str) -> Any:
        quantization = {"quant_method": "awq", "bits": 4, "version": version}
        change_config(copy, quantization_config=quantization)
        return loading._own_awq(copy, "float32", CPU)

    monkeypatch.setattr(awq, "load_awq_model", lambda folder, precision: "ours")
    monkeypatch.setattr(loading.importlib.util, "find_spec", lambda name: "is there")
    assert load_with("gemm") is None
    assert load_with("gemv") == "ours"


def test_a_tokenizer_encodes_as_the_one_that_was_saved(tiny_model, tokenizer):
    text = "The fever of the river"
    assert load_tokenizer(tiny_model)(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_a_checkpoint_without_a_tokenizer_is_explained(copy):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink()
    with pytest.raises(ModelError, match=r"has no tokenizer that can be loaded.*tokenizer.json"):
        load_tokenizer(copy)


def test_a_tokenizer_with_ids_past_the_embedding_is_refused(copy):
    longer = load_tokenizer(copy)
    longer.add_special_tokens({"pad_token": "<pad>"})
    longer.save_pretrained(copy)
    with pytest.raises(ModelError, match="<pad>"):
        load_tokenizer(copy)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_precision_is_that_of_the_plain_weights_beside_quantized_ones(
    tiny_model, tmp_path, bits, precision
):
    pytest.importorskip("bitsandbytes")
    load_model(tiny_model, precision="float32", device=CPU, bits=bits).save_pretrained(tmp_path)
    model = load_model(tmp_path, precision=precision, device=CPU)
    kinds = {weight.dtype for weight in model.parameters() if weight.is_floating_point()}
    assert kinds == {getattr(torch, precision)}
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32
    assert model(torch.tensor([[1, 300]])).logits.isfinite().all()
    assert model.stored_as == "bitsandbytes"
    assert num_weights(model) == num_weights(load_model(tiny_model))


def test_a_plain_model_is_stored_as_nothing_special(tiny_model):
    assert load_model(tiny_model).stored_as is None


def test_weights_of_four_bits_count_as_weights(tiny_model):
    model = load_model(tiny_model)
    whole = num_weights(model)
    layer = HybridLinear(
        torch.zeros(64, 32, dtype=torch.uint8), torch.zeros(1, 64, 2, dtype=torch.bfloat16)
    )
    model.model.layers[0].self_attn.q_proj = layer  # of the same shape, 64 by 64
    assert num_weights(model) == whole
