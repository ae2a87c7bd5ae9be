"""Extraction of adapters: what is recovered, what PEFT reads, what is refused."""

from __future__ import annotations

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from biomistral.artifacts import content_digest, read_manifest
from biomistral.errors import InputError, ModelError, RecipeError
from biomistral.merging.extraction import extract_lora
from biomistral.models.adapters import ADAPTER_CONFIG, UpdatedValues, read_adapter
from biomistral.models.cards import read_card
from biomistral.models.checkpoints import Checkpoint

UP = "model.layers.1.mlp.up_proj.weight"
NORM = "model.norm.weight"


@pytest.fixture
def tuned(tiny_model, tmp_path):
    """Return a function that copies the tiny model, its weights changed by another function."""

    def make(change, name="tuned"):
        folder = shutil.copytree(tiny_model, tmp_path / name)
        weights = load_file(folder / "model.safetensors")
        generator = torch.Generator().manual_seed(3)
        changed = {key: change(key, value, generator) for key, value in weights.items()}
        save_file(changed, folder / "model.safetensors")
        return folder

    return make


def by_rank(rank):
    """Change linear weights by a matrix of that rank."""

    def change(name, value, generator):
        if value.dim() < 2 or "embed" in name or "head" in name:
            return value
        b = torch.randn(value.shape[0], rank, generator=generator)
        return value + 0.01 * b @ torch.randn(rank, value.shape[1], generator=generator)

    return change


def everything_but_norms(name, value, generator):
    return value if "norm" in name else value + 0.01 * torch.randn(value.shape, generator=generator)


def everything(name, value, generator):
    return value + 0.01 * torch.randn(value.shape, generator=generator)


def only(*names):
    def change(name, value, generator):
        return everything(name, value, generator) if name in names else value

    return change


def shift(parameters):
    for parameter in parameters:
        parameter.data.add_(torch.randn(parameter.shape), alpha=0.01)


def merged(base_folder, adapter_folder):
    def read(stored):
        return load_file(stored.file)[stored.name]

    base = Checkpoint(base_folder)
    adapter = read_adapter(adapter_folder).fitted_to(base)
    weights = {}
    for name, stored in base.tensors.items():
        source = adapter.replacement_for(name) or stored
        weights[name] = read(source)
        if update := adapter.update_for(name):
            weights[name] = UpdatedValues(source, update, read)[:].view(stored.shape)
    return weights


def counts(folder):
    return read_manifest(folder)["counts"]


def test_a_change_of_low_rank_is_recovered(tiny_model, tuned, tmp_path):
    model = tuned(by_rank(3))
    out = extract_lora(model, tiny_model, tmp_path / "out", rank=3)
    found = merged(tiny_model, out)
    for name, value in load_file(model / "model.safetensors").items():
        assert torch.allclose(found[name], value, atol=1e-6), name
    assert counts(out)["captured_fraction"] == pytest.approx(1)
    assert counts(out)["warnings"] == []


def test_full_rank_and_whole_embeddings_are_the_model_again(tiny_model, tuned, tmp_path):
    model = tuned(everything_but_norms)
    out = extract_lora(model, tiny_model, tmp_path / "out", rank=64, embeddings=True)
    found = merged(tiny_model, out)
    for name, value in load_file(model / "model.safetensors").items():
        assert torch.allclose(found[name], value, atol=1e-6), name
    assert counts(out)["saved_whole"] == ["lm_head.weight", "model.embed_tokens.weight"]
    config = json.loads((out / ADAPTER_CONFIG).read_text())
    assert config["rank_pattern"]["model.layers.0.self_attn.k_proj"] == 32  # of 32 rows


@pytest.mark.parametrize("embeddings", [False, True])
def test_peft_loads_it_and_merges_it_to_the_same(tiny_model, tuned, tmp_path, embeddings):
    peft = pytest.importorskip("peft")
    model = tuned(everything_but_norms)
    out = extract_lora(model, tiny_model, tmp_path / "out", rank=48, embeddings=embeddings)
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    expected = peft.PeftModel.from_pretrained(base, out).merge_and_unload().state_dict()
    found = merged(tiny_model, out)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=0, atol=1e-6), name


def test_peft_loads_one_whose_head_is_the_embedding(tiny_model, tmp_path):
    peft = pytest.importorskip("peft")
    config = AutoConfig.from_pretrained(tiny_model)
    config.tie_word_embeddings = True
    torch.manual_seed(0)
    tied = AutoModelForCausalLM.from_config(config)
    tied.save_pretrained(tmp_path / "base")
    shift(parameter for parameter in tied.parameters() if parameter.dim() == 2)
    tied.save_pretrained(tmp_path / "tuned")
    assert "lm_head.weight" not in Checkpoint(tmp_path / "tuned").tensors
    out = extract_lora(
        tmp_path / "tuned", tmp_path / "base", tmp_path / "out", rank=64, embeddings=True
    )
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    restored = peft.PeftModel.from_pretrained(base, out).merge_and_unload()
    for name, value in tied.state_dict().items():
        assert torch.allclose(restored.state_dict()[name], value, atol=1e-6), name
        assert restored.lm_head.weight is restored.model.embed_tokens.weight
    found = merged(tmp_path / "base", out)
    embedding = tied.state_dict()["model.embed_tokens.weight"]
    assert torch.equal(found["model.embed_tokens.weight"], embedding)


def test_weights_stored_the_other_way_round_are_extracted(tmp_path):
    peft = pytest.importorskip("peft")
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=30))
    model.save_pretrained(tmp_path / "base")
    shift(p for name, p in model.named_parameters() if p.dim() == 2 and ".h." in name)
    model.save_pretrained(tmp_path / "tuned")
    out = extract_lora(tmp_path / "tuned", tmp_path / "base", tmp_path / "out", rank=16)
    base = GPT2LMHeadModel.from_pretrained(tmp_path / "base")
    restored = peft.PeftModel.from_pretrained(base, out).merge_and_unload().state_dict()
    for name, value in model.state_dict().items():
        assert torch.allclose(restored[name], value, atol=1e-5), name


def test_what_a_rank_captures_is_what_is_said(tiny_model, tuned, tmp_path):
    model = tuned(everything_but_norms)
    out = extract_lora(model, tiny_model, tmp_path / "out", rank=4)
    found, base = merged(tiny_model, out), Checkpoint(tiny_model)
    weights = load_file(model / "model.safetensors")
    for name, fraction in counts(out)["captured_fraction_by_tensor"].items():
        difference = weights[name] - base.tensor(name)
        lost = float((weights[name] - found[name]).norm() / difference.norm())
        assert fraction == pytest.approx(math.sqrt(1 - lost**2), abs=1e-4)
        best = torch.linalg.svdvals(difference)[:4].norm() / difference.norm()
        assert fraction == pytest.approx(float(best), abs=1e-4)
    fractions = counts(out)["captured_fraction_by_tensor"].values()
    assert min(fractions) < counts(out)["captured_fraction"] < max(fractions)


def test_only_what_changed_is_in_the_adapter(tiny_model, tuned, tmp_path):
    q_proj = [f"model.layers.{layer}.self_attn.q_proj.weight" for layer in (0, 1)]
    out = extract_lora(tuned(only(UP, *q_proj)), tiny_model, tmp_path / "out", rank=4)
    assert sorted(read_adapter(out).updates) == sorted([*q_proj, UP])
    config = json.loads((out / ADAPTER_CONFIG).read_text())
    assert config["target_modules"] == ["model.layers.1.mlp.up_proj", "q_proj"]


def test_a_warning_puts_a_number_to_what_is_left_out(tiny_model, tuned, tmp_path):
    model = tuned(everything)
    out = extract_lora(model, tiny_model, tmp_path / "out", rank=4)
    (warning,) = counts(out)["warnings"]
    assert warning.startswith("7 tensors that differ are not in the adapter")
    assert "--embeddings takes" in warning
    weights, base = load_file(model / "model.safetensors"), Checkpoint(tiny_model)
    distance = (weights[NORM] - base.tensor(NORM)).norm() / base.tensor(NORM).norm()
    assert counts(out)["left_out_relative_norm"][NORM] == pytest.approx(float(distance), rel=1e-5)
    out = extract_lora(model, tiny_model, tmp_path / "other", rank=4, embeddings=True)
    (warning,) = counts(out)["warnings"]
    assert warning.startswith("5 tensors")
    assert "--embeddings" not in warning


def test_the_same_bytes_for_any_number_of_threads_and_names_of_folders(tiny_model, tuned, tmp_path):
    model = tuned(everything_but_norms)
    before = torch.get_num_threads()
    digests = []
    try:
        for num_threads in (1, 3):
            torch.set_num_threads(num_threads)
            out = tmp_path / str(num_threads) / "adapter"
            digests.append(content_digest(extract_lora(model, tiny_model, out, rank=4)))
    finally:
        torch.set_num_threads(before)
    assert digests[0] == digests[1]
    assert str(tmp_path) not in "".join(p.read_text() for p in out.glob("*.[jm][sd]*[!s]"))


def test_the_card_says_what_it_is(tiny_model, tuned, tmp_path):
    model = tuned(by_rank(1))
    out = extract_lora(model, tiny_model, tmp_path / "out", rank=2, base_name="owner/base")
    card, text = read_card(out), (out / "README.md").read_text("utf-8")
    assert card.base_models == ("owner/base",)
    assert "base_model_relation: adapter\nlibrary_name: peft" in text
    assert "100.00 % of the norm" in text
    config = json.loads((out / ADAPTER_CONFIG).read_text())
    assert config["base_model_name_or_path"] == "owner/base"


def test_equal_models_and_those_without_linear_changes_are_refused(tiny_model, tuned, tmp_path):
    with pytest.raises(ModelError, match="the two models are equal; there is nothing to extract"):
        extract_lora(tuned(only()), tiny_model, tmp_path / "out")
    with pytest.raises(ModelError, match=r"only model\.norm\.weight does"):
        extract_lora(tuned(only(NORM), "other"), tiny_model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [UP, NORM, "lm_head.weight"])
def test_nan_is_named_and_nothing_is_left_behind(tiny_model, tuned, tmp_path, name):
    def breaking(key, value, generator):
        value = everything(key, value, generator)
        return value.index_fill(0, torch.tensor([1]), math.nan) if key == name else value

    with pytest.raises(ModelError, match=f"{name}: holds NaN or infinity"):
        extract_lora(tuned(breaking), tiny_model, tmp_path / "out", embeddings=True)
    assert not (tmp_path / "out").exists()


def test_models_that_do_not_belong_together_are_refused(tiny_model, make_model, tuned, tmp_path):
    with pytest.raises(ModelError, match=r"is of shape .* an adapter cannot change a shape"):
        extract_lora(make_model(0, intermediate_size=96), tiny_model, tmp_path / "out")
    deeper = make_model(0, num_hidden_layers=3)
    with pytest.raises(ModelError, match=r"lacks model\.layers\.2\..* one of 9 tensors"):
        extract_lora(deeper, tiny_model, tmp_path / "out")
    with pytest.raises(ModelError, match="lacks"):
        extract_lora(tiny_model, deeper, tmp_path / "out")
    quantized = tuned(lambda key, value, _: value.to(torch.int8) if key == UP else value)
    with pytest.raises(ModelError, match=f"{UP} is of type int8"):
        extract_lora(quantized, tiny_model, tmp_path / "out")


def test_mixtures_of_experts_are_refused(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "moe")
    save_file({"h.0.experts.0.w1.weight": torch.zeros(2, 2)}, folder / "model.safetensors")
    with pytest.raises(ModelError, match="is a mixture of experts"):
        extract_lora(folder, folder, tmp_path / "out")


def test_wrong_ranks_and_outputs_are_refused(tiny_model, tuned, tmp_path):
    with pytest.raises(RecipeError, match="rank 0 is below 1"):
        extract_lora(tiny_model, tiny_model, tmp_path / "out", rank=0)
    model = tuned(by_rank(1))
    with pytest.raises(InputError, match=r"is the input .*tuned', which is read"):
        extract_lora(model, tiny_model, model)
