"""Models with an adapter: the numbers that PEFT gives, where the base is looked for, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from biomistral.errors import InputError, ModelError
from biomistral.models.adapted import _weight, adapted
from biomistral.models.adapters import ADAPTER_CONFIG, ADAPTER_FILE
from biomistral.models.identity import digest_of_model, model_digest
from biomistral.models.loading import load_model, load_tokenizer

CPU = torch.device("cpu")
IDS = torch.arange(5, 17)[None]


@pytest.fixture
def run(tiny_model, tmp_path) -> Path:
    """A run with a model and an adapter of it, rank 2 for both q_proj, 64 wide."""
    shutil.copytree(tiny_model, tmp_path / "run/model/base")
    folder = tmp_path / "run/adapter/tuned"
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(1)
    tensors = {
        f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_{part}.weight": torch.randn(
            shape, generator=generator
        )
        for layer in (0, 1)
        for part, shape in (("A", (2, 64)), ("B", (64, 2)))
    }
    save_file(tensors, folder / ADAPTER_FILE)
    name_base(folder, "base")
    return tmp_path / "run"


def name_base(folder: Path, name: str | None) -> None:
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 3, "target_modules": ["q_proj"]}
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config | {"base_model_name_or_path": name}))


def both(run: Path) -> str:
    return f"{run / 'model/base'}+{run / 'adapter/tuned'}"


def logits(path: Path | str, **options: object) -> torch.Tensor:
    with torch.no_grad():
        return load_model(path, device=CPU, precision="float32", **options)(IDS).logits


def test_the_sum_is_what_peft_computes(run):
    peft = pytest.importorskip("peft")
    base = AutoModelForCausalLM.from_pretrained(run / "model/base", dtype=torch.float32)
    config = {"base_model_name_or_path": None}  # or PEFT asks the hub about it
    config = {**json.loads((run / "adapter/tuned" / ADAPTER_CONFIG).read_text()), **config}
    wrapped = peft.get_peft_model(base, peft.LoraConfig(**config))
    stored = load_file(run / "adapter/tuned" / ADAPTER_FILE)
    peft.set_peft_model_state_dict(wrapped, stored)
    with torch.no_grad():
        expected = wrapped.eval()(IDS).logits
    found = logits(both(run))
    assert torch.allclose(found, expected, atol=1e-4)
    assert (found - logits(run / "model/base")).abs().max() > 0.01


def test_whole_tensors_of_an_adapter_take_their_place(run):
    folder = run / "adapter/tuned"
    stored = load_file(folder / ADAPTER_FILE)
    head = load_file(run / "model/base/model.safetensors")["lm_head.weight"].float() * 2
    stored["base_model.model.lm_head.weight"] = head
    save_file(stored, folder / ADAPTER_FILE)
    model = load_model(both(run), device=CPU, precision="float32")
    assert torch.equal(model.lm_head.weight, head)


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_an_adapter_alone_is_added_to_the_model_of_its_run(run, precision):
    alone, named = (
        load_model(path, device=CPU, precision=precision)
        for path in (run / "adapter/tuned", both(run))
    )
    for (name, mine), theirs in zip(alone.named_parameters(), named.parameters(), strict=True):
        assert torch.equal(mine, theirs), name


def test_a_model_of_the_recipe_that_lies_elsewhere_is_found_by_its_name(run, tmp_path):
    shutil.move(run / "model/base", tmp_path / "elsewhere")
    name_base(run / "adapter/tuned", "elsewhere")
    recipe = f"name: r\nmodels:\n  start: {{path: {tmp_path / 'elsewhere'}}}\n"
    (run / "recipe.yaml").write_text(recipe)
    found = adapted(run / "adapter/tuned")
    assert found is not None
    assert found.base == tmp_path / "elsewhere"
    (run / "recipe.yaml").write_text(f"{recipe}of_another_version: 1\n")
    with pytest.raises(ModelError, match=r"'elsewhere', which was not found.*BASE\+"):
        adapted(run / "adapter/tuned")


def test_the_path_that_an_adapter_names_is_followed_and_the_hub_not_asked(run, tmp_path):
    folder = Path(shutil.move(run / "adapter/tuned", tmp_path / "alone"))
    name_base(folder, str(run / "model/base"))
    assert adapted(folder).folders == (run / "model/base", folder)
    name_base(folder, "owner/name")
    with pytest.raises(ModelError, match=r"of the model 'owner/name', which was not found.*BASE\+"):
        load_model(folder, device=CPU)
    name_base(folder, None)
    with pytest.raises(ModelError, match=r"does not say of which model; name both as BASE\+"):
        load_model(folder, device=CPU)


def test_the_tokenizer_is_the_adapters_if_it_has_one(run):
    ours = load_tokenizer(both(run))
    assert ours.get_vocab() == load_tokenizer(run / "model/base").get_vocab()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(run / "model/base" / name, run / "adapter/tuned" / name)
    path = run / "adapter/tuned/tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": "of the adapter"}))
    assert load_tokenizer(both(run)).chat_template == "of the adapter"


def test_a_tokenizer_of_more_tokens_than_the_base_has_rows_is_refused(run):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(run / "model/base" / name, run / "adapter/tuned" / name)
    path = run / "adapter/tuned/tokenizer.json"
    content = json.loads(path.read_text())
    content["added_tokens"].append({**content["added_tokens"][0], "id": 9999, "content": "<new>"})
    path.write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"adapter/tuned: the tokenizer gives .*<new>.* 9999"):
        load_tokenizer(both(run))


def test_a_model_and_a_plus_in_the_name_of_a_folder_are_no_adapter(run, tmp_path):
    assert adapted(run / "model/base") is None
    odd = Path(shutil.copytree(run / "model/base", tmp_path / "a+b"))
    assert adapted(odd) is None
    assert logits(odd).shape[:2] == IDS.shape


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{base}+{base}", r"base: holds no adapter, and behind the \+"),
        ("{base}+{adapter}+{adapter}", r"is no BASE\+ADAPTER, one model and one adapter"),
        ("+{adapter}", r"is no BASE\+ADAPTER"),
        ("{base}+", r"is no BASE\+ADAPTER"),
        ("nowhere+{adapter}", r"nowhere: there is no such folder"),
        ("{base}+./nowhere", r"nowhere: there is no such folder"),
        ("model.gguf+{adapter}", r"model.gguf: is quantized \(gguf\)"),
    ],
)
def test_what_is_no_base_and_adapter_is_refused(run, text, said):
    path = text.format(base=run / "model/base", adapter=run / "adapter/tuned")
    with pytest.raises((InputError, ModelError), match=said):
        load_model(path, device=CPU)


def test_an_adapter_is_not_added_to_quantized_weights(run):
    path = run / "model/base/config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "quantization_config": {"quant_method": "awq"}}))
    with pytest.raises(ModelError, match=r"base: is quantized \(awq\).*plain weights; name the"):
        load_tokenizer(both(run))


def test_an_adapter_is_not_quantized_while_it_is_loaded(run):
    with pytest.raises(ModelError, match=r"tuned: is an adapter; merge it .* in 4 bits"):
        load_model(both(run), device=CPU, bits=4)


def test_an_adapter_of_another_width_is_refused_with_both_shapes(run, make_model):
    other = make_model(hidden_size=32)
    with pytest.raises(ModelError, match=r"shape \[64, 64\] in the adapter and \["):
        load_model(f"{other}+{run / 'adapter/tuned'}", device=CPU)


def test_a_tensor_that_the_loaded_model_calls_otherwise_is_named(make_model):
    model = AutoModelForCausalLM.from_pretrained(make_model())
    weights = dict(model.named_parameters())
    inside = "layers.0.self_attn.q_proj.weight"
    assert _weight(model, weights, inside) is not None  # model.layers... in the model
    with pytest.raises(ModelError, match=r"changes layers\.0\.experts\.1, which the loaded model"):
        _weight(model, weights, "layers.0.experts.1")


def test_base_and_adapter_both_count_for_the_digest(run):
    before = digest_of_model(both(run))
    assert before != model_digest(run / "model/base")
    assert before == digest_of_model(run / "adapter/tuned")
    name_base(run / "adapter/tuned", "model/base")
    assert digest_of_model(both(run)) != before
