"""LoRA adapters: what PEFT makes of them, and every way in which one could be merged in part."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from biomistral.errors import ModelError
from biomistral.models.adapters import (
    ADAPTER_CONFIG,
    ADAPTER_FILE,
    LowRankUpdate,
    UpdatedValues,
    is_adapter,
    read_adapter,
)
from biomistral.models.checkpoints import Checkpoint
from biomistral.models.safetensors_files import StoredTensor

Q_PROJ = "model.layers.0.self_attn.q_proj"


def read(stored):
    return load_file(stored.file)[stored.name]


@pytest.fixture
def make_adapter(tmp_path):
    """Return a function that writes an adapter by hand: rank 2 for both q_proj, 64 wide."""

    def make(tensors=None, **config):
        folder = tmp_path / "adapter"
        folder.mkdir(exist_ok=True)
        if tensors is None:
            generator = torch.Generator().manual_seed(1)
            tensors = {
                f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_{part}.weight": (
                    torch.randn(shape, generator=generator)
                )
                for layer in (0, 1)
                for part, shape in (("A", (2, 64)), ("B", (64, 2)))
            }
        save_file(tensors, folder / ADAPTER_FILE)
        values = {"peft_type": "LORA", "r": 2, "lora_alpha": 3, "target_modules": ["q_proj"]}
        (folder / ADAPTER_CONFIG).write_text(json.dumps(values | config))
        return folder

    return make


def with_peft(model_folder, folder, **config):
    """Save an adapter with random numbers by PEFT; return the weights that PEFT merges it to."""
    peft = pytest.importorskip("peft")
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **config))
    torch.manual_seed(5)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name or "modules_to_save" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    wrapped.save_pretrained(folder)
    return wrapped.merge_and_unload().state_dict()


def merged(model_folder, adapter_folder):
    base = Checkpoint(model_folder)
    adapter = read_adapter(adapter_folder).fitted_to(base)
    weights = {}
    for name, stored in base.tensors.items():
        source = adapter.replacement_for(name) or stored
        weights[name] = read(source)
        if update := adapter.update_for(name):
            values = UpdatedValues(source, update, read)
            weights[name] = values[0 : values.numel()].view(stored.shape)
    return weights


@pytest.mark.parametrize(
    "config",
    [
        {"r": 4, "target_modules": ["q_proj", "down_proj"]},
        {"r": 4, "lora_alpha": 7, "use_rslora": True, "target_modules": "all-linear"},
        {
            "r": 4,
            "target_modules": ["q_proj", "up_proj"],
            "rank_pattern": {"up_proj": 8, "layers.0.self_attn.q_proj": 2},
            "alpha_pattern": {"q_proj": 32},
        },
        {"r": 2, "target_modules": ["v_proj"], "modules_to_save": ["lm_head", "norm"]},
        {"r": 2, "target_modules": ["embed_tokens", "lm_head", "o_proj"]},
    ],
    ids=["plain", "rslora", "patterns", "modules_to_save", "embeddings"],
)
def test_base_and_adapter_are_what_peft_merges_them_to(tiny_model, tmp_path, config):
    expected = with_peft(tiny_model, tmp_path / "adapter", **config)
    found = merged(tiny_model, tmp_path / "adapter")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=0, atol=1e-6), name
    base = Checkpoint(tiny_model)
    assert any(not torch.equal(found[name], base.tensor(name)) for name in found)


def test_weights_stored_the_other_way_round_are_what_peft_merges_them_to(tmp_path):
    """GPT-2 keeps (in, out); files of the base model alone have names without a prefix."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=30))
    model.save_pretrained(tmp_path / "whole")
    model.transformer.save_pretrained(tmp_path / "bare")
    changes = {"r": 2, "fan_in_fan_out": True, "target_modules": ["c_attn", "mlp.c_fc"]}
    expected = with_peft(tmp_path / "whole", tmp_path / "adapter", **changes)
    whole, bare = (merged(tmp_path / name, tmp_path / "adapter") for name in ("whole", "bare"))
    for name, value in whole.items():
        assert torch.allclose(expected[name], value, rtol=0, atol=1e-6), name
        assert torch.equal(bare[name.removeprefix("transformer.")], value)
    assert any(name.startswith("h.0") for name in bare)


@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3)),
    ends=st.tuples(st.integers(0, 81), st.integers(0, 81)),
    transposed=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_any_slice_is_that_of_the_whole_sum(tmp_path_factory, shape, ends, transposed):
    rows, columns, rank = shape
    generator = torch.Generator().manual_seed(0)
    values = {
        "a": torch.randn(rank, columns, generator=generator),
        "b": torch.randn(rows, rank, generator=generator),
    }
    change = 0.5 * (values["b"].double() @ values["a"].double())
    change = change.T if transposed else change
    values["w"] = torch.randn(change.shape, generator=generator).bfloat16()
    stored = {
        name: StoredTensor(name, tuple(value.shape), "float32", "unused", 0)
        for name, value in values.items()
    }
    update = LowRankUpdate(stored["a"], stored["b"], 0.5, transposed)
    updated = UpdatedValues(stored["w"], update, lambda tensor: values[tensor.name])
    expected = (values["w"].float() + change.float()).reshape(-1)
    assert updated.numel() == expected.numel()
    place = slice(min(ends), max(ends))
    assert updated[place].dtype == torch.float32
    assert torch.allclose(updated[place], expected[place], rtol=1e-6, atol=0)


def test_reading_an_adapter_needs_no_pytorch(make_adapter):
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from biomistral.models.adapters import read_adapter;"
        "read_adapter(Path(sys.argv[1])); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(make_adapter())], check=True)


def test_an_adapter_says_what_it_is(make_adapter, tiny_model):
    folder = make_adapter(base_model_name_or_path="somebody/model")
    adapter = read_adapter(folder)
    assert is_adapter(folder)
    assert not is_adapter(tiny_model)
    assert adapter.base_model == "somebody/model"
    assert list(adapter.updates) == [f"{Q_PROJ}.weight", f"{Q_PROJ.replace('0', '1')}.weight"]
    assert adapter.update_for(f"{Q_PROJ}.weight").scaling == 1.5
    assert adapter.update_for("model.norm.weight") is None
    assert adapter.replacement_for(f"{Q_PROJ}.weight") is None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "IA3"}, "is of the type 'IA3'; LORA is what can be read"),
        ({"use_dora": True}, "has use_dora: true, .*merge_and_unload"),
        ({"bias": "all"}, 'has bias: "all"'),
        ({"init_lora_weights": "pissa"}, 'has init_lora_weights: "pissa"'),
        ({"trainable_token_indices": [3], "lora_bias": True}, "has lora_bias: true, trainable"),
        ({"r": 4}, "no update of the rank 4"),
        ({"r": None}, "r is None"),
        ({"rank_pattern": {"layers.1.self_attn.q_proj": 3}}, r"layers\.1.*no update of the rank 3"),
        ({"modules_to_save": ["lm_head"]}, "names the module 'lm_head', for which .* no tensor"),
        ({"target_modules": ["q_proj", "v_proj"]}, "names the module 'v_proj'"),
    ],
)
def test_an_adapter_that_means_something_else_is_refused_by_name(make_adapter, config, message):
    with pytest.raises(ModelError, match=message):
        read_adapter(make_adapter(**config))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lora_magnitude_vector", "q_proj.lora_magnitude_vector, which is neither"),
        ("lora_A.default.weight", "q_proj.lora_A.default.weight, which is neither"),
        ("lora_A.weight", "no lora_B"),
    ],
)
def test_unknown_and_single_tensors_are_refused_by_name(make_adapter, name, message):
    folder = make_adapter({f"base_model.model.{Q_PROJ}.{name}": torch.zeros(2, 64)})
    with pytest.raises(ModelError, match=message):
        read_adapter(folder)


def test_a_target_that_the_base_does_not_have_is_an_error(make_adapter, tiny_model):
    base = Checkpoint(tiny_model)
    folder = make_adapter()
    tensors = load_file(folder / ADAPTER_FILE)
    misnamed = {name.replace("layers.1", "layers.7"): value for name, value in tensors.items()}
    message = r"changes model\.layers\.7\.self_attn\.q_proj\.weight, .*did you mean"
    with pytest.raises(ModelError, match=message):
        read_adapter(make_adapter(misnamed)).fitted_to(base)


def test_a_target_of_another_shape_is_an_error(make_adapter, make_model):
    other = Checkpoint(make_model(0, hidden_size=32))
    with pytest.raises(ModelError, match=r"shape \[64, 64\] in the adapter and \[32, 32\] in"):
        read_adapter(make_adapter()).fitted_to(other)


def test_a_head_that_is_the_embedding_cannot_be_changed_alone(make_adapter, tiny_model):
    base = Checkpoint(tiny_model)
    base.config["tie_word_embeddings"] = True
    head = base.tensor("lm_head.weight").clone()
    del base.tensors["lm_head.weight"]
    tensors = load_file(make_adapter() / ADAPTER_FILE) | {"base_model.model.lm_head.weight": head}
    folder = make_adapter(tensors, modules_to_save=["lm_head"])
    with pytest.raises(ModelError, match="shares that tensor with its embedding"):
        read_adapter(folder).fitted_to(base)
    folder = make_adapter(tensors, modules_to_save=["lm_head"], ensure_weight_tying=True)
    assert not read_adapter(folder).fitted_to(base).replacements


def test_nan_in_an_adapter_is_refused_by_name(make_adapter, tiny_model):
    folder = make_adapter()
    tensors = load_file(folder / ADAPTER_FILE)
    tensors[f"base_model.model.{Q_PROJ}.lora_A.weight"][0, 3] = float("nan")
    make_adapter(tensors)
    with pytest.raises(ModelError, match=r"q_proj\.lora_A\.weight holds NaN"):
        merged(tiny_model, folder)


def test_pickled_adapters_are_read_only_if_asked_for(make_adapter):
    folder = make_adapter()
    torch.save(load_file(folder / ADAPTER_FILE), folder / "adapter_model.bin")
    (folder / ADAPTER_FILE).unlink()
    with pytest.raises(ModelError, match=r"pickled \(adapter_model\.bin\).*--allow-pickle"):
        read_adapter(folder)
    assert len(read_adapter(folder, allow_pickle=True).updates) == 2


def test_folders_that_hold_no_whole_adapter_are_refused(tmp_path, make_adapter):
    with pytest.raises(ModelError, match=r"has no adapter_config\.json"):
        read_adapter(tmp_path)
    folder = make_adapter()
    (folder / ADAPTER_FILE).unlink()
    with pytest.raises(ModelError, match=r"has no adapter_model\.safetensors"):
        read_adapter(folder)
    (folder / ADAPTER_CONFIG).write_text("{")
    with pytest.raises(ModelError, match="is not JSON"):
        read_adapter(folder)
    with pytest.raises(ModelError, match="has no tensors"):
        read_adapter(make_adapter({}, target_modules=[]))
