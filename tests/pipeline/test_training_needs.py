from __future__ import annotations

from pathlib import Path

import pytest

from biomistral.pipeline import training_needs
from biomistral.recipe import load_recipe
from biomistral.training import memory

MISTRAL = """{hidden_size: 4096, intermediate_size: 14336, num_hidden_layers: 32,
num_attention_heads: 32, num_key_value_heads: 8}"""
RECIPE = """
name: x
models:
  blank: {architecture: %s, tokenizer: {corpora: [c], vocabulary_size: 32000}}
  far: {path: owner/name}
  known: {path: mistralai/Mistral-7B-Instruct-v0.1, revision: abc}
corpus: [{name: c, texts: t.txt, tokenizer: blank, sequence_length: 2048}]
pretrain:
  - {name: p, model: blank, rows_per_step: 4, accumulation_steps: 8}
  - {name: q, model: p, gradient_checkpointing: true, precision: bfloat16, rows_per_step: 3}
  - {name: r, model: far}
  - {name: u, model: known, rows_per_step: 4, accumulation_steps: 8}
sft:
  - {name: s, model: p, questions: all, method: qlora, accumulation_steps: 8}
dpo:
  - {name: t, model: s, questions: all, method: full, accumulation_steps: 8}
"""


@pytest.fixture
def recipe(tmp_path: Path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE % MISTRAL.replace("\n", " "))
    return load_recipe(path)


def test_each_training_run_says_what_it_needs_and_what_to_change(recipe, monkeypatch) -> None:
    monkeypatch.setattr(memory, "host_memory_bytes", lambda: 24 * 10**9)
    needs = dict(training_needs(recipe))
    assert list(needs) == ["model/p", "model/q", "model/r", "model/u", "adapter/s", "model/t"]
    assert "7,241,732,096 parameters" in needs["model/p"]
    assert "weights 43.5 GB" in needs["model/p"]
    assert "86.9 GB of disk a checkpoint, of which 2 are kept" in needs["model/p"]
    assert "(this machine has 24.0 GB): start it on more GPUs" in needs["model/p"]
    assert "set gradient_checkpointing: true" in needs["model/p"]
    assert "weights 14.5 GB" in needs["model/q"]  # a model made from a model has its shape
    assert "set gradient_checkpointing" not in needs["model/q"]
    assert "41,943,040 of 7,241,732,096 parameters trained" in needs["adapter/s"]
    assert "503 MB of disk a checkpoint" in needs["adapter/s"]
    assert "set bits: 4" in needs["adapter/s"]
    assert "optimizer 57.9 GB" in needs["model/t"]
    assert "set method: qlora" in needs["model/t"]
    assert needs["model/r"] == "what it needs of memory is known when its model is here"


def test_a_well_known_model_that_is_not_here_has_its_published_shape(recipe) -> None:
    needs = dict(training_needs(recipe))
    whence = "by the published shape of its model, which is not here: "
    assert needs["model/u"] == whence + needs["model/p"]  # which is built like it


def test_more_processes_need_less_each_or_cannot_share(recipe) -> None:
    needs = dict(training_needs(recipe, 8))
    assert "weights 5.4 GB" in needs["model/p"]
    assert "in each process" in needs["model/p"]
    assert "3 rows x 1 cannot be shared evenly by 8 processes" in needs["model/q"]
    assert "in each process" in needs["model/t"]
    assert "optimizer 7.2 GB" in needs["model/t"]
    assert "weights 7.7 GB" in needs["adapter/s"]  # each process has the whole of it


def test_where_it_fits_no_advice_is_given(recipe, monkeypatch) -> None:
    monkeypatch.setattr(memory, "host_memory_bytes", lambda: 10**13)
    assert "does not fit" not in dict(training_needs(recipe))["model/p"]
