from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from biomistral.errors import ModelError
from biomistral.models.checkpoints import Checkpoint
from biomistral.models.loading import load_tokenizer
from biomistral.quantization import gguf_check
from biomistral.quantization.gguf_check import check_file, check_tokens, weight_errors
from biomistral.quantization.gguf_writing import write_gguf

pytest.importorskip("gguf")


@pytest.fixture(scope="module")
def file(tmp_path_factory, tiny_model) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    tokenizer = load_tokenizer(tiny_model)
    write_gguf(Checkpoint(tiny_model), path, "q8_0", name="small", tokenizer=tokenizer)
    return path


def test_a_true_file_passes(file, tiny_model):
    found = check_file(Checkpoint(tiny_model), file, load_tokenizer(tiny_model))
    assert found["relative_logit_error"] < 0.03
    assert found["texts_with_equal_tokens"] > 300


def test_a_model_too_large_for_the_memory_has_its_tokens_checked_alone(
    file, tiny_model, monkeypatch
):
    monkeypatch.setattr(gguf_check.os, "sysconf", lambda name: 100)
    found = check_file(Checkpoint(tiny_model), file, load_tokenizer(tiny_model))
    assert set(found) == {"texts_with_equal_tokens"}


def test_another_models_file_is_told_by_its_logits(file, make_model):
    with pytest.raises(
        ModelError, match=r"small\.gguf: .* logits differ by 1\.\d\d of their length"
    ):
        check_file(Checkpoint(make_model(1)), file, load_tokenizer(make_model(1)))


def test_another_tokenizer_is_told_by_its_ids(file, tiny_model, tmp_path):
    other = shutil.copytree(tiny_model, tmp_path / "other")
    state = json.loads((other / "tokenizer.json").read_text())
    vocabulary = state["model"]["vocab"]
    first, second = "▁f", "▁t"
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (other / "tokenizer.json").write_text(json.dumps(state))
    with pytest.raises(ModelError, match=r"its tokenizer gives .* this tokenizer cannot be put"):
        check_tokens(file, load_tokenizer(other))


def test_another_chat_template_is_told(file, tiny_model):
    tokenizer = load_tokenizer(tiny_model)
    tokenizer.chat_template = "{{ messages }}"
    with pytest.raises(ModelError, match="another chat template"):
        check_tokens(file, tokenizer)


def test_weight_errors_are_of_the_right_tensor(file, tiny_model, tmp_path):
    errors = weight_errors(Checkpoint(tiny_model), file)
    assert all(0.003 < value < 0.01 for found in errors.values() for value in found)
    stored = load_file(tiny_model / "model.safetensors")
    stored["model.layers.1.mlp.up_proj.weight"] = torch.zeros(128, 64)
    shutil.copytree(tiny_model, tmp_path / "m")
    save_file(stored, tmp_path / "m" / "model.safetensors", metadata={"format": "pt"})
    errors = weight_errors(Checkpoint(tmp_path / "m"), file)
    assert errors["up_proj"][1] > 1
    assert errors["up_proj"][0] < 0.01
