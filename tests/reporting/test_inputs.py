from __future__ import annotations

from pathlib import Path

import pytest

from biomistral import artifacts
from biomistral.artifacts import Origin
from biomistral.errors import InputError
from biomistral.reporting.inputs import inputs_of_run, named_runs


def put(folder: Path, kind: str, name: str, **settings: object) -> None:
    with artifacts.create(folder / kind / name, Origin(kind, name, settings)):  # type: ignore[arg-type]
        pass


def test_models_are_in_the_order_in_which_they_were_scored(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        put(tmp_path, "model", name)
        put(tmp_path, "predictions", name)
    put(tmp_path, "scores", "scores", models=["b", "gone", "a"])
    found = inputs_of_run(tmp_path)
    assert list(found.models) == list(found.predictions) == ["b", "a", "c"]
    assert found.questions is found.costs is None


def test_a_draft_is_no_artefact(tmp_path: Path) -> None:
    put(tmp_path, "model", "whole")
    (tmp_path / "model/.half.0123456789ab.partial").mkdir()
    (tmp_path / "model/torn").mkdir()
    assert list(inputs_of_run(tmp_path).models) == ["whole"]
    assert [role for role, _, _ in inputs_of_run(tmp_path).labelled()] == ["model"]


def test_a_folder_without_artefacts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(InputError, match="holds no artefact of a run; name a folder that"):
        inputs_of_run(tmp_path)
    with pytest.raises(InputError, match="nowhere: there is no such folder; name that of a run"):
        inputs_of_run(tmp_path / "nowhere")


def test_runs_are_named_by_as_many_folders_as_tell_them_apart(tmp_path: Path) -> None:
    runs = [tmp_path / "a/miniature", tmp_path / "b/miniature", tmp_path / "b/other"]
    assert list(named_runs(runs)) == ["a/miniature", "b/miniature", "other"]


def test_a_run_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is named twice"):
        named_runs([tmp_path / "a", tmp_path / "b/../a"])
