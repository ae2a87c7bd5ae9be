"""Checkpoint folders: opened without loading, refused in words, written tensor by tensor."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from biomistral.errors import ModelError
from biomistral.models.checkpoints import INDEX, Checkpoint, check_tokenizer_fits


@pytest.fixture
def model_copy(tiny_model, tmp_path):
    """A copy of the tiny model that a test may break."""
    return shutil.copytree(tiny_model, tmp_path / "model")


@pytest.fixture
def sharded(tiny_model, tmp_path):
    """The tiny model saved by Transformers in several files."""
    folder = tmp_path / "sharded"
    AutoModelForCausalLM.from_pretrained(tiny_model).save_pretrained(folder, max_shard_size="100KB")
    assert (folder / INDEX).is_file()
    return folder


def write_json_file(path, value):
    path.write_text(json.dumps(value), encoding="utf-8")


# --- reading ---


def test_tensors_are_those_that_transformers_loads(tiny_model):
    checkpoint = Checkpoint(tiny_model)
    state = AutoModelForCausalLM.from_pretrained(tiny_model).state_dict()
    assert set(checkpoint.tensors) == set(state)
    for name, value in state.items():
        assert checkpoint.tensors[name].shape == tuple(value.shape)
        assert torch.equal(checkpoint.tensor(name), value)
    assert checkpoint.config["model_type"] == "mistral"
    assert checkpoint.embedding_rows() == checkpoint.config["vocab_size"]


def test_shards_change_neither_order_nor_values(tiny_model, sharded):
    single, several = Checkpoint(tiny_model), Checkpoint(sharded)
    assert list(single.tensors) == list(several.tensors)
    for name in single.tensors:
        assert torch.equal(single.tensor(name), several.tensor(name))


def test_layer_two_comes_before_layer_ten(model_copy):
    names = [f"model.layers.{layer}.weight" for layer in (10, 2, 1)]
    save_file({name: torch.zeros(1) for name in names}, model_copy / "model.safetensors")
    assert list(Checkpoint(model_copy).tensors) == names[::-1]


def test_writing_to_an_opened_tensor_does_not_change_the_file(model_copy):
    before = (model_copy / "model.safetensors").read_bytes()
    Checkpoint(model_copy).tensor("model.norm.weight").zero_()
    assert (model_copy / "model.safetensors").read_bytes() == before


def test_scalars_and_empty_tensors_are_read(model_copy):
    save_file({"s": torch.tensor(3.0), "e": torch.empty(0, 2)}, model_copy / "model.safetensors")
    checkpoint = Checkpoint(model_copy)
    assert checkpoint.tensor("s").item() == 3.0
    assert checkpoint.tensor("e").shape == (0, 2)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(ModelError, match="is not a folder"):
        Checkpoint(tmp_path / "nowhere")


def test_a_missing_config_is_refused(model_copy):
    (model_copy / "config.json").unlink()
    with pytest.raises(ModelError, match=r"has no config\.json"):
        Checkpoint(model_copy)


@pytest.mark.parametrize("text", ["{", "[1]", "\x00"])
def test_a_broken_config_is_refused(model_copy, text):
    (model_copy / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config\.json: .*fetch the file again"):
        Checkpoint(model_copy)


def test_an_adapter_is_refused_with_the_way_out(tmp_path):
    write_json_file(tmp_path / "adapter_config.json", {})
    with pytest.raises(ModelError, match=r"holds an adapter.*base\+adapter"):
        Checkpoint(tmp_path)


def test_pickled_weights_are_refused_with_the_way_out(model_copy):
    (model_copy / "model.safetensors").rename(model_copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pickled \(pytorch_model\.bin\).*save_pretrained"):
        Checkpoint(model_copy)


def test_a_folder_without_weights_is_refused(model_copy):
    (model_copy / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="has no weights"):
        Checkpoint(model_copy)


def test_a_truncated_shard_is_refused_with_its_name(sharded):
    shard = sorted(sharded.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-3])
    with pytest.raises(ModelError, match=f"{shard.name}: is damaged"):
        Checkpoint(sharded)


def change_index(folder, change):
    index = json.loads((folder / INDEX).read_text())
    change(index["weight_map"])
    write_json_file(folder / INDEX, index)


def test_an_index_that_lists_too_much_is_refused(sharded):
    change_index(sharded, lambda m: m.update(ghost=m["model.norm.weight"]))
    with pytest.raises(ModelError, match=r"'ghost'.*the index lists it, the file lacks it"):
        Checkpoint(sharded)


def test_an_index_that_lists_too_little_is_refused(sharded):
    change_index(sharded, lambda m: m.pop("model.norm.weight"))
    with pytest.raises(ModelError, match=r"'model\.norm\.weight'.*the index does not list it"):
        Checkpoint(sharded)


@pytest.mark.parametrize("file_name", ["model-00009-of-00009.safetensors", "../x.safetensors"])
def test_an_index_that_names_a_file_outside_the_folder_is_refused(sharded, file_name):
    shutil.copy(next(sharded.glob("*.safetensors")), sharded.parent / "x.safetensors")
    change_index(sharded, lambda m: m.update(ghost=file_name))
    with pytest.raises(ModelError, match="which is not in the folder"):
        Checkpoint(sharded)


@pytest.mark.parametrize("value", [{}, {"weight_map": []}, {"weight_map": {}}])
def test_an_index_without_a_map_is_refused(sharded, value):
    write_json_file(sharded / INDEX, value)
    with pytest.raises(ModelError, match="has no weight_map"):
        Checkpoint(sharded)


# --- the tokenizer ---


def test_a_tokenizer_of_the_size_of_the_embedding_fits(tiny_model):
    check_tokenizer_fits(tiny_model)


def test_a_model_without_a_tokenizer_passes(sharded):
    check_tokenizer_fits(sharded)


def test_an_added_token_past_the_embedding_is_refused(model_copy, tokenizer):
    bigger = AutoTokenizer.from_pretrained(model_copy)
    bigger.add_special_tokens({"pad_token": "<pad>"})
    bigger.save_pretrained(model_copy)
    rows = len(tokenizer)
    with pytest.raises(ModelError, match=f"'<pad>' the id {rows}.*has {rows} rows.*resize"):
        check_tokenizer_fits(model_copy)


def test_a_special_token_that_is_only_named_is_counted(model_copy):
    path = model_copy / "tokenizer_config.json"
    write_json_file(path, {**json.loads(path.read_text()), "pad_token": "<pad>"})
    appended = AutoTokenizer.from_pretrained(model_copy).pad_token_id
    with pytest.raises(ModelError, match=f"'<pad>' the id {appended}, but"):
        check_tokenizer_fits(model_copy)


def test_named_tokens_beside_a_bare_sentencepiece_model_prove_nothing(model_copy):
    (model_copy / "tokenizer.json").unlink()
    (model_copy / "tokenizer.model").write_bytes(b"")
    write_json_file(model_copy / "added_tokens.json", {"<x>": 3})
    check_tokenizer_fits(model_copy)
    write_json_file(model_copy / "added_tokens.json", {"<x>": 30_000})
    with pytest.raises(ModelError, match="the id 30000"):
        check_tokenizer_fits(model_copy)


@pytest.mark.parametrize(
    ("name", "value", "last"),
    [
        ("tokenizer.json", {"model": {"vocab": [["a", 0.0]] * 8 + [["z", -1.0]]}}, ("z", 8)),
        ("tokenizer.json", {"model": {"vocab": {"a": 0, "z": 8}}}, ("z", 8)),
        ("vocab.json", {"a": 0, "z": 8}, ("z", 8)),
        ("tokenizer_config.json", {"added_tokens_decoder": {"9": {"content": "q"}}}, ("q", 9)),
    ],
)
def test_ids_are_found_in_every_form_of_tokenizer(model_copy, name, value, last):
    for file in model_copy.glob("tokenizer*"):
        file.unlink()
    change_embedding(model_copy, num_rows=last[1])
    write_json_file(model_copy / name, value)
    with pytest.raises(ModelError, match=f"'{last[0]}' the id {last[1]}, but"):
        check_tokenizer_fits(model_copy)
    change_embedding(model_copy, num_rows=last[1] + 1)
    check_tokenizer_fits(model_copy)


def change_embedding(folder, num_rows):
    tensors = {"model.embed_tokens.weight": torch.zeros(num_rows, 2)}
    save_file(tensors, folder / "model.safetensors")


def test_a_model_without_a_known_embedding_passes(model_copy):
    save_file({"x": torch.zeros(1)}, model_copy / "model.safetensors")
    assert Checkpoint(model_copy).embedding_rows() is None
    check_tokenizer_fits(model_copy)


@pytest.mark.parametrize("value", [{"model": None}, {"added_tokens": [{"id": 3}]}])
def test_tokenizer_files_of_unknown_form_are_refused(model_copy, value):
    write_json_file(model_copy / "tokenizer.json", value)
    with pytest.raises(ModelError, match="tokenizer files are not of a known form"):
        check_tokenizer_fits(model_copy)
