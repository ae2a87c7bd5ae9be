from __future__ import annotations

from pathlib import Path

import pytest

from biomistral.errors import InputError
from biomistral.pipeline import making
from biomistral.pipeline.making import Place
from biomistral.recipe.settings import BenchmarkSettings, CorpusSettings, EvaluateSettings


def test_a_place_is_a_folder_or_a_name_on_the_hub(tmp_path: Path) -> None:
    assert Place(tmp_path).problems() == []
    assert Place(tmp_path).folder() == tmp_path
    assert Place("somebody/Model-7B").problems() == []
    assert Place(Path("somebody/Model-7B")).problems() != []  # written as ./somebody/Model-7B
    for gone in (tmp_path / "gone", "./gone/model"):
        assert Place(gone).problems() == [f"{gone}: there is no such model folder"]
        with pytest.raises(InputError, match="there is no such folder"):
            Place(gone).folder()


def test_a_hub_place_is_known_by_name_and_revision() -> None:
    places = [Place("o/m"), Place("o/m", "abc"), Place("o/n")]
    assert len({place.fingerprint() for place in places}) == 3
    assert Place("o/m", "abc").fingerprint() == places[1].fingerprint()


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


def test_an_adapter_counts_together_with_its_base(tiny_model, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    place = Place(Path(f"{tiny_model}+{adapter}"))
    assert place.problems() == []
    assert place.folder() == place.path
    before = place.fingerprint()
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 8}')
    assert len({before, place.fingerprint(), Place(tiny_model).fingerprint()}) == 3
    assert "there is no such folder" in Place(Path(f"{tiny_model}+nowhere")).problems()[0]
