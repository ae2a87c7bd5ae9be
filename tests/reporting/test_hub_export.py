from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from biomistral import artifacts
from biomistral.advisory import ADVISORY
from biomistral.artifacts import Origin
from biomistral.errors import InputError, ModelError
from biomistral.models.cards import Card, write_card
from biomistral.records import Score, Task, write_records
from biomistral.reporting.hub_export import (
    EVAL_RESULTS,
    HubNames,
    export_hub,
    for_all_readers,
    upload,
)

CONFIG = {"model_type": "mistral", "dtype": "bfloat16", "rope_parameters": {"rope_theta": 1e6}}


def make_model(run: Path, name: str, card: Card | None = None, **config: object) -> Path:
    folder = run / "model" / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    (folder / "model.safetensors").write_bytes(b"weights of " + name.encode())
    (folder / "tokenizer.json").write_text("{}")
    (folder / "speed.volatile.json").write_text("{}")
    if card:
        write_card(folder, card)
    return folder


@pytest.fixture
def run(tmp_path, make_score) -> Path:
    """A run: a model from the hub was trained on, quantized, and all were evaluated."""
    folder = tmp_path / "run"
    base = ("mistralai/Mistral-7B-Instruct-v0.1",)
    data = {"languages": ("en", "fr"), "licence": "apache-2.0", "datasets": ("articles", "a/b")}
    make_model(folder, "medical", Card("medical", base, "finetune", "Trained.", **data))
    awq = {"quantization_config": {"quant_method": "awq"}}
    made = Card("small", ("medical",), "quantized", "Smaller.", {"Method": "AWQ"}, **data)
    make_model(folder, "small", made, **awq)
    gguf = make_model(folder, "file", Card("file", ("blank",), "quantized", "One file.", **data))
    (gguf / "model.safetensors").rename(gguf / "file.gguf")
    tasks = [Task("medmcqa", "MedMCQA", "medical", "s", "MIT")]
    with artifacts.create(folder / "questions/benchmark", Origin("questions", "q", {})) as draft:
        write_records(draft.folder / "tasks.parquet", tasks, Task)
    scores = [make_score("medical", "medmcqa", 0.6), make_score("small", "medmcqa", 0.55)]
    with artifacts.create(folder / "scores/scores", Origin("scores", "s", {})) as draft:
        write_records(draft.folder / "scores.parquet", scores, Score)
    return folder


def front_matter(folder: Path) -> dict[str, Any]:
    return yaml.safe_load((folder / "README.md").read_text().split("---")[1])


def test_each_model_has_its_files_and_a_card_with_results(run, tmp_path):
    out = tmp_path / "hub"
    exported = export_hub(run, out, names=HubNames("me"))
    assert [one.name for one in exported] == ["file", "medical", "small"]
    assert {path.name for path in (out / "small").iterdir()} == {
        *("config.json", "model.safetensors", "tokenizer.json", "README.md", ".eval_results"),
    }
    assert (out / "small/model.safetensors").read_bytes() == b"weights of small"
    matter = front_matter(out / "small")
    assert matter["base_model"] == ["me/medical"]
    assert matter["base_model_relation"] == "quantized"
    assert matter["license"] == "apache-2.0"
    assert matter["language"] == ["en", "fr"]
    assert matter["datasets"] == ["a/b"]
    assert "awq" in matter["tags"]
    assert matter["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.55
    card = (out / "small/README.md").read_text()
    for words in (ADVISORY, "MedMCQA", "55.0", "## Limits", "- articles", "| Base | me/medical |"):
        assert words in card
    (entry,) = yaml.safe_load((out / "small" / EVAL_RESULTS).read_text())
    assert entry["value"] == 55.0
    assert len(entry["date"]) == len("2026-01-31")


def test_places_on_this_machine_are_not_told(run, tmp_path):
    settings = {"texts": ["/home/someone/ward/**/*.jsonl", "data/*.txt"], "model": "~/models/base"}
    model = run / "model/made"
    with artifacts.create(model, Origin("model", "made", settings)) as draft:
        (draft.folder / "config.json").write_text(json.dumps(CONFIG))
    export_hub(run, tmp_path / "hub", only=["made"])
    told = json.loads((tmp_path / "hub/made/manifest.json").read_text())
    assert told["settings"] == {"texts": ["*.jsonl", "data/*.txt"], "model": "base"}
    kept = json.loads((model / "manifest.json").read_text())
    assert kept == {**told, "settings": settings}


def test_a_base_on_the_hub_keeps_its_name(run, tmp_path):
    export_hub(run, tmp_path / "hub", only=["medical"])
    matter = front_matter(tmp_path / "hub/medical")
    assert matter["base_model"] == ["mistralai/Mistral-7B-Instruct-v0.1"]
    assert matter["base_model_relation"] == "finetune"


def test_a_base_without_a_name_on_the_hub_is_told_and_can_be_given(run, tmp_path):
    (found,) = export_hub(run, tmp_path / "a", only=["file"])
    assert found.notes[0] == "its base 'blank' has no name on the hub: say --base blank=OWNER/NAME"
    assert found.notes[1] == "no results: it was not evaluated in this run"
    assert "base_model" not in front_matter(tmp_path / "a/file")
    names = HubNames(given={"blank": "you/blank"})
    (found,) = export_hub(run, tmp_path / "b", only=["file"], names=names)
    matter = front_matter(tmp_path / "b/file")
    assert matter["base_model"] == ["you/blank"]
    assert matter["library_name"] == "gguf"


def test_the_config_is_for_all_readers_and_the_runs_own_stays(run, tmp_path):
    before = (run / "model/small/config.json").read_text()
    export_hub(run, tmp_path / "hub")
    config = json.loads((tmp_path / "hub/small/config.json").read_text())
    assert (config["torch_dtype"], config["rope_theta"]) == ("bfloat16", 1e6)
    assert (run / "model/small/config.json").read_text() == before
    assert for_all_readers({"torch_dtype": "float16"})["dtype"] == "float16"


def test_one_model_alone_is_laid_out_too(run, tmp_path):
    (found,) = export_hub(run / "model/small", tmp_path / "hub")
    assert found.folder == tmp_path / "hub/small"
    assert "model-index" not in front_matter(found.folder)


def test_a_model_without_a_card_says_so(tmp_path):
    make_model(tmp_path / "run", "bare")
    (found,) = export_hub(tmp_path / "run", tmp_path / "hub")
    assert found.notes[0].startswith("no card.json")
    assert "no licence is stated" in found.notes[1]
    assert ADVISORY in (found.folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"only": ["smal"]}, r"has no model 'smal'; did you mean \"small\"\?"),
        ({"names": HubNames("a b")}, "--owner a b: is no name of the hub"),
        ({"names": HubNames(given={"x": "y"})}, "--base x=y: is no repository of the hub"),
    ],
)
def test_wrong_names_are_refused(run, tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        export_hub(run, tmp_path / "hub", **arguments)
    assert not (tmp_path / "hub").exists()


def test_a_place_that_is_taken_is_kept(run, tmp_path):
    (tmp_path / "hub/small").mkdir(parents=True)
    with pytest.raises(InputError, match=r"small: already exists; remove it, or name another"):
        export_hub(run, tmp_path / "hub")
    assert [path.name for path in (tmp_path / "hub").iterdir()] == ["small"]


def test_a_folder_without_models_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no model; name the folder of a run"):
        export_hub(tmp_path, tmp_path.parent / "hub")


def test_the_output_may_not_lie_in_the_run(run):
    with pytest.raises(InputError, match="lies in the input"):
        export_hub(run, run / "hub")


def test_a_model_without_a_config_is_refused(run, tmp_path):
    (run / "model/small/config.json").unlink()
    with pytest.raises(ModelError, match=r"small: has no config\.json"):
        export_hub(run, tmp_path / "hub")


class Hub:
    """Stands in for the network: notes what it is asked for."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.error = error

    def create_repo(self, repository: str, *, private: bool, exist_ok: bool) -> str:
        self.asked.append((repository, private, exist_ok))
        return f"https://hub/{repository}"

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
        if self.error:
            raise self.error
        self.asked.append((repo_id, sorted(p.name for p in folder_path.iterdir()), commit_message))


def test_uploading_makes_a_private_repository_and_sends_the_folder(run, tmp_path):
    (found,) = export_hub(run, tmp_path / "hub", only=["medical"])
    hub = Hub()
    assert upload(found, "me/medical", api=hub) == "https://hub/me/medical"
    assert hub.asked[0] == ("me/medical", True, True)
    assert hub.asked[1][0] == "me/medical"
    assert "README.md" in hub.asked[1][1]


def test_a_hub_that_refuses_is_explained(run, tmp_path):
    (found,) = export_hub(run, tmp_path / "hub", only=["medical"])
    with pytest.raises(
        InputError, match=r"did not take it \(no such token\); log in with 'hf auth"
    ):
        upload(found, "me/medical", api=Hub(OSError("no such token")))
