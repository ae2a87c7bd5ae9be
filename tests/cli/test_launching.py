from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from biomistral.artifacts import Origin, read_manifest
from biomistral.cli import launching
from biomistral.errors import InputError, ModelError
from biomistral.pipeline import Step

RECIPE = """
name: small
models: {start: {path: %s}}
corpus: {texts: "%s/*.txt", sequence_length: 16, minimum_words: 1}
pretrain: [{name: m, model: start, tokens: 64, rows_per_step: 2, learning_rate: 0.001}]
"""


def step_of(code: str, key: str = "model/m") -> Step:
    kind, name = key.split("/")
    return Step(kind, name, Origin("model", name, {}), (), lambda *_: None, code=code)  # type: ignore[arg-type]


@pytest.fixture
def recipe(tiny_model: Path, tmp_path: Path) -> Path:
    (tmp_path / "texts").mkdir()
    for index in range(6):
        text = f"In valley {index} the fever is treated with bark and rest, never with water."
        (tmp_path / "texts" / f"{index}.txt").write_text(text)
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE % (tiny_model, tmp_path / "texts"))
    return path


@pytest.mark.slow
def test_a_model_is_trained_in_two_processes_and_the_launch_line_is_told(
    command, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    finished = command("run", recipe, "--out", tmp_path / "runs", "--nproc", "2")
    assert finished.status == 0, finished.err
    line = f"--nproc-per-node=2 -m biomistral run {recipe} --out {tmp_path}/runs --only model/m"
    assert line in " ".join(finished.out.split())
    manifest = read_manifest(tmp_path / "runs/small/model/m")
    assert manifest is not None
    assert manifest["counts"]["processes"] == 2


def test_a_dry_run_says_what_training_needs(command, recipe: Path, tmp_path: Path) -> None:
    finished = command("run", recipe, "--out", tmp_path / "runs", "--dry-run")
    assert "model/m: " in finished.out
    assert "parameters, about" in finished.out
    assert "of disk a checkpoint" in finished.out


def test_several_processes_make_only_what_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = [step_of("corpus", "tokens/c"), *map(step_of, ("pretrain", "sft", "dpo"))]
    launching.check_only_training(waiting)
    monkeypatch.setenv("WORLD_SIZE", "2")
    launching.check_only_training(waiting[1:])
    with pytest.raises(
        InputError, match=r"tokens/c: is not there yet, and 2 processes \(WORLD_SIZE"
    ):
        launching.check_only_training(waiting)


def test_processes_that_fail_are_an_error_with_their_status(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(launching, "launch_command", lambda *_: [sys.executable, "-c", "exit(3)"])
    bar = SimpleNamespace(stop=lambda: None, start=lambda: None)
    again = launching.Again(Path("r.yaml"), Path("runs"), ("a=1",), 2)
    with pytest.raises(ModelError, match="model/m: training in 2 processes ended with status 3"):
        launching.launch(Console(quiet=True), bar, again, step_of("pretrain"))


def test_the_line_repeats_what_was_asked_for() -> None:
    again = launching.Again(Path("r.yaml"), Path("runs"), ("a=1", "b=2"), 4)
    line = again.command(step_of("pretrain"))
    tail = ["run", "r.yaml", "--out", "runs", "--only", "model/m", "--set", "a=1", "--set", "b=2"]
    assert line[-len(tail) :] == tail
