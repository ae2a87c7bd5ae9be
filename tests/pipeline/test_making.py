from __future__ import annotations

from pathlib import Path

import pytest

from biomistral.errors import InputError
from biomistral.pipeline import making
from biomistral.recipe.settings import BenchmarkSettings, CorpusSettings, EvaluateSettings


def test_every_seed_can_have_examples_of_its_own() -> None:
    settings = EvaluateSettings(models=["a"], shots=3, seeds=[1, 2, 3])
    assert making.shots_needed(settings) == 9


def test_files_of_a_corpus_are_found_when_they_are_asked_for(tmp_path: Path) -> None:
    find = making.corpus_files(CorpusSettings(texts=[f"{tmp_path}/*.txt"]))
    with pytest.raises(InputError, match="matches no files"):
        list(find())
    (tmp_path / "a.txt").write_text("a")
    assert list(find()) == [("a.txt", tmp_path / "a.txt")]


def test_files_of_the_benchmark_are_those_of_its_tasks_and_languages(miniature_world: Path) -> None:
    benchmark = BenchmarkSettings(data=str(miniature_world / "benchmark"))
    settings = EvaluateSettings(models=["a"], tasks=["trial"], languages=["fr"])
    found = making.question_files(benchmark, settings)()
    relative = {name for name, _ in found}
    assert all(path == miniature_world / "benchmark" / name for name, path in found)
    assert "trial/task.yaml" in relative
    assert "trial/fr/test.jsonl" in relative
    assert not [name for name in relative if "/en/" in name or not name.startswith("trial/")]


def test_a_model_that_cannot_be_written_to_stays_and_it_is_said(tmp_path: Path) -> None:
    file = tmp_path / "m.json"
    file.write_text("{}")
    model = tmp_path / "model"
    model.mkdir()
    making._put_calibration(file, model)
    assert [path.name for path in model.iterdir()] == ["calibration.json"]
    with pytest.warns(
        UserWarning, match=r"gone/calibration.json: cannot be written .* copy .*m.json"
    ):
        making._put_calibration(file, tmp_path / "gone")
