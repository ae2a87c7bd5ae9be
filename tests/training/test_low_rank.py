"""Adapters: what is trained, what is refused, and gradients that are right beside 4-bit weights."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch

from biomistral.errors import MissingDependencyError, ModelError
from biomistral.models.adapters import read_adapter
from biomistral.recipe.settings import SftSettings
from biomistral.training import low_rank
from biomistral.training.low_rank import load_learner, num_trained


def settings_of(**changes: object) -> SftSettings:
    values = {"name": "tuned", "model": "base", "questions": "all", "precision": "float32"}
    return SftSettings.model_validate({**values, **changes})


def test_an_adapter_is_all_that_is_trained(tiny_model):
    learner = load_learner(settings_of(rank=4, targets=["q_proj", "v_proj"]), tiny_model, 1)
    trained = {name for name, p in learner.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 2 * 2  # layers, targets, A and B
    assert all("lora_" in name for name in trained)
    # q_proj 64 -> 64, v_proj 64 -> 32
    assert num_trained(learner) == 2 * 4 * ((64 + 64) + (64 + 32))


def test_with_full_every_weight_is_trained_in_float32(tiny_model):
    learner = load_learner(settings_of(method="full", precision="mixed"), tiny_model, 1)
    assert all(p.requires_grad and p.dtype == torch.float32 for p in learner.parameters())


def test_mixed_holds_the_model_in_bfloat16_and_the_adapter_in_float32(tiny_model):
    learner = load_learner(settings_of(precision="mixed"), tiny_model, 1)
    dtypes = {p.requires_grad: p.dtype for p in learner.parameters()}
    assert dtypes == {True: torch.float32, False: torch.bfloat16}


def test_the_seed_draws_the_first_values(tiny_model):
    one, same, other = (
        load_learner(settings_of(), tiny_model, seed).state_dict() for seed in (1, 1, 2)
    )
    name = next(name for name in one if "lora_A" in name)
    assert torch.equal(one[name], same[name])
    assert not torch.equal(one[name], other[name])


def test_an_unknown_target_names_the_layers_there_are(tiny_model):
    said = r"no linear layer called 'q_porj'; did you mean \"q_proj\"\? \(there is: down_proj, "
    with pytest.raises(ModelError, match=said):
        load_learner(settings_of(targets=["q_porj"]), tiny_model, 1)


def test_a_model_without_the_projections_says_what_it_has(tmp_path, tokenizer):
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    config = GPTNeoXConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    GPTNeoXForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError) as error:
        load_learner(settings_of(), tmp_path, 1)
    assert "has no linear layer called 'q_proj'" in str(error.value)
    assert "query_key_value" in str(error.value)
    assert "set targets in the entry 'tuned'" in str(error.value)


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_a_quantized_model_is_refused_by_every_method(tiny_model, tmp_path, method):
    for path in tiny_model.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"is quantized \(bitsandbytes\), and quantized weights"):
        load_learner(settings_of(method=method), tmp_path, 1)


def test_without_peft_the_pip_line_is_told(tiny_model, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'biomistral\[training\]'"):
        load_learner(settings_of(), tiny_model, 1)


def test_what_is_saved_says_nothing_of_this_machine_and_can_be_merged(tiny_model, tmp_path):
    learner = load_learner(settings_of(rank=2), tiny_model, 1)
    low_rank.save_adapter(learner, tiny_model, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == tiny_model.name
    assert config["target_modules"] == sorted(config["target_modules"])
    assert str(tiny_model.parent) not in (tmp_path / "adapter_config.json").read_text()
    assert len(read_adapter(tmp_path).updates) == 2 * 7


def gradients(model, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    logits = model(input_ids=ids, use_cache=False).logits
    logits.float().logsumexp(-1).mean().backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("bits", [4, 8])
def test_a_pass_without_gradients_leaves_those_beside_quantized_weights_right(
    tiny_model, bits, monkeypatch
):
    """bitsandbytes 0.50 repacks 4-bit weights in it on some CPUs, and gradients then go missing."""
    ids = torch.arange(3, 35)[None]

    def after(*, evaluated: bool) -> dict[str, torch.Tensor]:
        settings = settings_of(method="qlora", bits=bits, dropout=0.0)
        learner = load_learner(settings, tiny_model, 1)
        for name, parameter in learner.named_parameters():
            if "lora_B" in name:  # else no gradient passes through A
                torch.nn.init.normal_(
                    parameter, std=0.02, generator=torch.Generator().manual_seed(3)
                )
        if evaluated:
            learner.eval()
            with torch.no_grad():
                learner(input_ids=ids, use_cache=False)
        return gradients(learner.train(), ids)

    undisturbed, disturbed = after(evaluated=False), after(evaluated=True)
    assert undisturbed.keys() == disturbed.keys()
    for name, gradient in undisturbed.items():
        assert torch.equal(gradient, disturbed[name]), name
    assert any(bool(gradient.any()) for gradient in undisturbed.values())


@pytest.mark.parametrize("bits", [4, 8])
def test_gradients_beside_quantized_weights_are_near_those_beside_plain_ones(tiny_model, bits):
    ids = torch.arange(3, 35)[None]
    found = {}
    for method, more in (("lora", {}), ("qlora", {"bits": bits})):
        learner = load_learner(settings_of(method=method, dropout=0.0, **more), tiny_model, 1)
        flat = torch.cat([g.flatten() for g in gradients(learner.train(), ids).values()])
        found[method] = flat
    similarity = torch.cosine_similarity(found["lora"], found["qlora"], dim=0)
    assert similarity > {4: 0.9, 8: 0.99}[bits]
