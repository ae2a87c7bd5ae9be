from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub.utils import filter_repo_objects

from biomistral.errors import InputError, ModelError
from biomistral.models import hub
from biomistral.models.checkpoints import COMPANIONS, INDEX
from biomistral.models.hub import is_hub_id, local_folder, name_of


@pytest.mark.parametrize("name", ["somebody/River-7B", "o/m", "a.b/c_d-e.f"])
def test_owner_and_name_are_a_hub_repository(name: str) -> None:
    assert is_hub_id(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "model",
        "./o/m",
        "../o/m",
        "/o/m",
        "a/b/c",
        "o/",
        "o/m/",
        "~/m",
        "é/m",
        "o/m x",
        "o\\m",
        "o/m\\",
    ],
)
def test_anything_else_is_a_folder(name: str) -> None:
    assert not is_hub_id(name)


def test_a_folder_that_is_there_is_no_hub_repository(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "o" / "m").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert not is_hub_id("o/m")
    assert local_folder("o/m") == Path("o/m")


def test_a_path_that_was_written_as_one_is_never_looked_up_on_the_hub() -> None:
    assert not is_hub_id(Path("./o/m"))
    with pytest.raises(InputError, match="o/m: there is no such folder"):
        local_folder(Path("./o/m"))


def test_a_slip_in_a_path_is_not_looked_up_on_the_hub(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert not is_hub_id("models/tini")
    with pytest.raises(InputError, match="models/tini: there is no such folder"):
        local_folder("models/tini")
    assert is_hub_id("somebody/tini")


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file: is a file; name the folder"):
        local_folder(tmp_path / "file")


def test_all_that_goes_with_a_checkpoint_is_fetched_and_its_weights_once() -> None:
    wanted = {*COMPANIONS, "config.json", INDEX, "model-00001-of-00002.safetensors", "README.md"}
    unwanted = {"consolidated.safetensors", "consolidated-00001-of-00002.safetensors"}
    others = {"pytorch_model.bin", "modeling_river.py", "original/consolidated.00.safetensors"}
    others |= {"checkpoint-9/model.safetensors", "onnx/config.json"}
    fetched = filter_repo_objects(
        wanted | unwanted | others, allow_patterns=hub._WANTED, ignore_patterns=hub._UNWANTED
    )
    assert set(fetched) == wanted


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin", "adapter_model.bin"])
@pytest.mark.parametrize("allow_pickle", [False, True])
def test_pickled_weights_are_fetched_if_asked_for_and_there_are_no_others(
    tmp_path: Path, monkeypatch, weights: str, allow_pickle: bool
) -> None:
    asked = []
    files = [SimpleNamespace(rfilename=name) for name in ("config.json", weights)]
    monkeypatch.setattr(
        "huggingface_hub.HfApi.model_info", lambda *_, **__: SimpleNamespace(siblings=files)
    )

    def fetch(name: str, *, allow_patterns: list[str], **_: object) -> str:
        asked.append(allow_patterns)
        for file in filter_repo_objects([weights], allow_patterns=allow_patterns):
            (tmp_path / file).touch()
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    wanted = allow_pickle or weights.endswith("safetensors")
    if wanted:
        local_folder("somebody/model", allow_pickle=allow_pickle)
    else:
        with pytest.raises(ModelError, match=r"only pickled weights on the hub.*--allow-pickle"):
            local_folder("somebody/model")
    assert [path.name for path in tmp_path.iterdir()] == ([weights] if wanted else [])
    assert len(asked) == 1 + (allow_pickle and weights.endswith("bin"))


def test_what_is_neither_is_told_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone: there is no such folder; name the folder of a"):
        local_folder(tmp_path / "gone")


@pytest.mark.parametrize("name", ["somebody/Model-that-nobody-has", "a--b/c", "a/b.git"])
def test_what_cannot_be_fetched_is_one_line(name: str) -> None:
    with pytest.raises(ModelError, match="cannot be fetched from the hub") as caught:
        local_folder(name, revision="0123abc")
    message = str(caught.value)
    assert message.startswith(f"{name}: is no folder here")
    assert "\n" not in message
    assert "or name a folder" in message


def test_a_repository_in_the_cache_needs_no_network(tmp_path: Path, monkeypatch) -> None:
    """The layout of the hub's cache: a snapshot for each commit, and names that point to commits."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "models--o--m" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path))

    def no_network(*_: object, **__: object) -> None:
        raise ConnectionError

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", no_network)
    assert local_folder("o/m", revision=commit) == snapshot
    assert name_of(snapshot) == "o/m"
    assert name_of(tmp_path / "folder") == "folder"
    (snapshot / "pytorch_model.bin.index.json").write_text("{}")
    with pytest.raises(ModelError, match="only pickled weights"):
        local_folder("o/m", revision=commit)


def test_a_file_that_is_not_in_the_cache_is_not_fetched(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert hub.cached_file("nobody/nothing-of-this-name", None, "config.json") is None
    assert hub.cached_file(str(tmp_path), None, "config.json") is None
