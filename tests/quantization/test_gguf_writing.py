from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from biomistral.errors import MissingDependencyError, ModelError
from biomistral.models.checkpoints import Checkpoint
from biomistral.models.gguf import load_gguf_model
from biomistral.models.loading import load_tokenizer
from biomistral.quantization.gguf_writing import find_tool, run_tool, write_gguf

gguf = pytest.importorskip("gguf")


def written(folder: Path, file: Path, type_: str = "q8_0") -> gguf.GGUFReader:
    write_gguf(Checkpoint(folder), file, type_, name="small", tokenizer=load_tokenizer(folder))
    return gguf.GGUFReader(file)


def changed_config(source: Path, folder: Path, **changes: object) -> Path:
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


def test_types_of_tensors(make_model, tmp_path):
    source = make_model(0)
    for type_, matrices, ends in (("q8_0", "Q8_0", "Q8_0"), ("q4_0", "Q4_0", "Q8_0")):
        tensors = {t.name: t for t in written(source, tmp_path / f"{type_}.gguf", type_).tensors}
        assert tensors["blk.1.ffn_down.weight"].tensor_type.name == matrices
        assert tensors["token_embd.weight"].tensor_type.name == ends
        assert tensors["output.weight"].tensor_type.name == ends
        assert tensors["blk.0.attn_norm.weight"].tensor_type.name == "F32"


def test_what_the_header_says(make_model, tmp_path):
    source = make_model(0, rope_theta=1e6)
    fields = written(source, tmp_path / "m.gguf").fields
    contents = {key: field.contents() for key, field in fields.items()}
    assert contents["general.architecture"] == "llama"
    assert contents["llama.context_length"] == 512
    assert contents["llama.attention.head_count"] == 4
    assert contents["llama.attention.head_count_kv"] == 2
    assert contents["llama.rope.freq_base"] == pytest.approx(1e6)
    assert contents["llama.rope.dimension_count"] == 16
    assert contents["tokenizer.ggml.model"] == "llama"
    assert contents["tokenizer.ggml.add_bos_token"] is True
    assert contents["tokenizer.ggml.add_eos_token"] is False
    assert len(contents["tokenizer.ggml.tokens"]) == len(load_tokenizer(source))


def test_rows_of_queries_are_put_in_the_order_of_llama_cpp(tiny_model, tmp_path):
    tensors = {t.name: t for t in written(tiny_model, tmp_path / "m.gguf", "bf16").tensors}
    found = gguf.quants.dequantize(
        tensors["blk.0.attn_k.weight"].data, gguf.GGMLQuantizationType.BF16
    )
    exact = Checkpoint(tiny_model).tensor("model.layers.0.self_attn.k_proj.weight").numpy()
    # Two heads of width 16: rows 0, 8, 1, 9, ... of each.
    order = [head * 16 + i + half * 8 for head in range(2) for i in range(8) for half in range(2)]
    assert np.allclose(found.reshape(exact.shape), exact[order], rtol=1e-2)


def test_a_chat_template_goes_into_the_file(tiny_model, tmp_path):
    source = shutil.copytree(tiny_model, tmp_path / "chat")
    (source / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    fields = written(source, tmp_path / "m.gguf").fields
    assert fields["tokenizer.chat_template"].contents() == "{{ messages[0]['content'] }}"


@pytest.mark.parametrize("config_class", [LlamaConfig, Qwen2Config])
def test_other_architectures_come_back_the_same(config_class, tokenizer, tmp_path):
    config = config_class(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=config_class is Qwen2Config,
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = AutoModelForCausalLM.from_config(config).eval()
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                parameter.data.normal_(std=0.1)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    written(tmp_path, tmp_path / "m.gguf", "bf16")
    read = load_gguf_model(tmp_path / "m.gguf", torch.float32)
    assert read.config.model_type == config.model_type
    ids = torch.arange(5, 60)[None]
    with torch.no_grad():
        expected = model(ids).logits
        difference = read(ids).logits - expected
    assert float(difference.norm() / expected.norm()) < 0.01


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mamba"}, r"model of type mamba: a GGUF file is known here for llama, mis"),
        (
            {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0}},
            r"its rotary frequencies are scaled \(llama3\)",
        ),
    ],
)
def test_what_cannot_be_said_is_refused(tiny_model, tmp_path, changes, message):
    folder = changed_config(tiny_model, tmp_path / "changed", **changes)
    with pytest.raises(ModelError, match=message):
        write_gguf(Checkpoint(folder), tmp_path / "m.gguf", "q8_0", name="x", tokenizer=None)


def test_rows_that_are_no_multiple_of_the_block_are_refused(make_model, tmp_path):
    source = make_model(0, intermediate_size=72)
    with pytest.raises(
        ModelError, match=r"down_proj\.weight: its rows of 72 are not a multiple of 32"
    ):
        written(source, tmp_path / "m.gguf")
    written(source, tmp_path / "bf16.gguf", "bf16")


def fake_tool(folder: Path, script: str) -> None:
    tool = folder / "llama-quantize"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)


def test_the_tool_is_given_both_files_and_the_type(tmp_path, monkeypatch):
    fake_tool(tmp_path, 'cp "$1" "$2"; echo "$3" >> "$2"')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    (tmp_path / "plain").write_text("weights\n")
    run_tool(tmp_path / "plain", tmp_path / "out", "q4_k_m")
    assert (tmp_path / "out").read_text() == "weights\nQ4_K_M\n"


def test_a_tool_that_fails_is_quoted(tmp_path, monkeypatch):
    fake_tool(tmp_path, 'echo "loading" >&2; echo "bad row size" >&2; exit 3')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(ModelError, match=r"Q6_K: failed with status 3 \(bad row size\)"):
        run_tool(tmp_path / "plain", tmp_path / "out", "q6_k")


def test_a_missing_tool_is_named_with_what_needs_none(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependencyError, match=r"llama-quantize of llama.cpp.*bf16, q8_0"):
        find_tool("q4_k_m")


def test_a_missing_library_is_named_with_its_line(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr("biomistral.errors.importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'biomistral\[quantization\]'"):
        write_gguf(Checkpoint(tiny_model), tmp_path / "m", "q8_0", name="x", tokenizer=None)
