"""Preference tuning moves probability from the worse answers to the better ones."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM

from biomistral import artifacts
from biomistral.errors import InputError, MissingDependencyError
from biomistral.recipe.settings import DpoSettings
from biomistral.training import prefer
from biomistral.training.lessons import Preference, preferences_of


def settings_of(**changes: object) -> DpoSettings:
    values = {
        "name": "preferred",
        "model": "base",
        "questions": "all",
        "epochs": 2,
        "learning_rate": 1e-2,
        "sequence_length": 256,
        "precision": "float32",
        **changes,
    }
    return DpoSettings.model_validate(values)


def log_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def preferred(tiny_model, asked, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("preferred") / "preferred"
    return prefer(settings_of(), tiny_model, out, requests=asked)


def log_probability(model, prompt: tuple[int, ...], answer: tuple[int, ...]) -> torch.Tensor:
    ids = torch.tensor([[*prompt, *answer]])
    log_p = F.log_softmax(model(input_ids=ids, use_cache=False).logits[0, :-1], -1)
    return log_p[range(len(prompt) - 1, ids.shape[1] - 1), ids[0, len(prompt) :]].sum()


def test_the_better_answers_gain(preferred):
    log = log_of(preferred)
    # Before the first step nothing has gained: the loss is that of a coin.
    assert log[0]["loss"] == pytest.approx(0.693147, abs=1e-5)
    assert log[0]["margin"] == pytest.approx(0, abs=1e-6)
    assert log[-1]["loss"] < 0.65
    assert log[-1]["margin"] > 0.1
    assert log[-1]["preferred"] >= 0.75


def test_an_adapter_comes_out_and_no_copy_of_its_start(preferred):
    assert {path.name for path in preferred.iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "card.json",
        "manifest.json",
        "throughput.volatile.json",
        "training_log.jsonl",
    }
    manifest = artifacts.read_manifest(preferred)
    assert manifest["counts"]["pairs"] == 12
    assert "sigmoid, beta 0.1" in (preferred / "README.md").read_text()


def loss_by_hand(trained, start, pair: Preference, beta: float) -> float:
    gains = [
        log_probability(trained, pair.prompt, answer) - log_probability(start, pair.prompt, answer)
        for answer in (pair.chosen, pair.rejected)
    ]
    return float(-F.logsigmoid(beta * (gains[0] - gains[1])))


def test_the_loss_of_a_trained_model_is_that_of_the_paper(tiny_model, asked, tokenizer, tmp_path):
    """One pair, again and again: the loss logged at step n is that of the model after n - 1."""
    start = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    [pair] = preferences_of(tokenizer, asked[:1], rejections=1, seed=42)
    common = {"method": "full", "rows_per_step": 1, "schedule": "constant", "learning_rate": 1e-3}
    short, long = (
        prefer(
            settings_of(**common, epochs=epochs),
            tiny_model,
            tmp_path / str(epochs),
            requests=asked[:1],
        )
        for epochs in (3, 4)
    )
    trained = AutoModelForCausalLM.from_pretrained(short, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = loss_by_hand(trained, start, pair, 0.1)
    assert expected < 0.69
    assert log_of(long)[-1]["loss"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "qlora", "bits": 8},
        {"method": "qlora", "bits": 4, "precision": "mixed"},
        {"loss": "hinge"},
        {"loss": "apo_zero"},
        {"loss": "ipo", "gradient_checkpointing": True},
    ],
    ids=str,
)
def test_every_way_of_preferring_learns(changes, tiny_model, asked, tmp_path):
    out = prefer(settings_of(**changes), tiny_model, tmp_path / "out", requests=asked)
    log = log_of(out)
    assert log[-1]["loss"] < log[0]["loss"]
    assert log[-1]["margin"] > 0


def test_pairs_come_from_files_too(tiny_model, asked, tmp_path):
    path = tmp_path / "pairs.jsonl"
    lines = [
        {"prompt": f"Fever {n} is treated with", "chosen": " bark", "rejected": " cold water"}
        for n in range(4)
    ]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    settings = DpoSettings.model_validate(
        {"name": "x", "model": "base", "pairs": str(path), "precision": "float32"}
    )
    out = prefer(settings, tiny_model, tmp_path / "out")
    assert artifacts.read_manifest(out)["counts"]["pairs"] == 4
    assert "pairs.jsonl" in (out / "README.md").read_text()


def test_a_wrong_pair_stops_the_run_before_any_work(tiny_model, tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "Q", "chosen": "a", "rejected": "a"}\n')
    settings = DpoSettings(name="x", model="base", pairs=[str(path)])
    with pytest.raises(InputError, match="line 1: chosen and rejected are the same"):
        prefer(settings, tiny_model, tmp_path / "out")


def test_without_trl_the_pip_line_is_told(tiny_model, asked, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        MissingDependencyError, match=r"'trl'.*pip install 'biomistral\[training\]'"
    ):
        prefer(settings_of(), tiny_model, tmp_path / "out", requests=asked)


def test_nothing_is_printed(tiny_model, asked, tmp_path, capfd):
    prefer(settings_of(epochs=0.2), tiny_model, tmp_path / "out", requests=asked)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("method", ["lora", "full"])
def test_an_interrupted_run_ends_in_the_same_bytes(method, tiny_model, asked, tmp_path):
    def stop(done: float, total: float | None, text: str) -> None:
        if total is not None and done == 5:
            raise KeyboardInterrupt

    settings = settings_of(method=method, save_every_steps=2)
    whole = prefer(settings, tiny_model, tmp_path / "whole", requests=asked)
    with pytest.raises(KeyboardInterrupt):
        prefer(settings, tiny_model, tmp_path / "out", requests=asked, progress=stop)
    out = prefer(settings, tiny_model, tmp_path / "out", requests=asked)
    assert artifacts.content_digest(out) == artifacts.content_digest(whole)
    assert artifacts.read_manifest(out)["resumed"] is True
