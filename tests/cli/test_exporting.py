from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from biomistral.cli.exporting import hub
from biomistral.errors import InputError


@pytest.fixture
def run(tmp_path) -> Path:
    for name in ("one", "two"):
        folder = tmp_path / "run/model" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"model_type": "mistral"}))
    return tmp_path / "run"


class Hub:
    def __init__(self) -> None:
        self.sent: list[tuple[str, bool]] = []

    def create_repo(self, repository: str, *, private: bool, exist_ok: bool) -> str:
        self.sent.append((repository, private))
        return f"https://hub/{repository}"

    def upload_folder(self, **_: Any) -> None:
        return


def options(**changes: Any) -> dict[str, Any]:
    return {"owner": None, "upload": False, "public": False, **changes}


def test_nothing_is_uploaded_without_being_asked_for(run, tmp_path, capsys):
    api = Hub()
    hub(run, tmp_path / "out", [], [], **options(owner="me"), api=api)
    assert api.sent == []
    said = capsys.readouterr().out
    assert "2 laid out, nothing uploaded; look at the cards first" in said
    assert "no licence is stated" in said


def test_uploads_go_to_the_owner_in_private_unless_public(run, tmp_path, capsys):
    for public in (False, True):
        api = Hub()
        changes = options(owner="me", upload=True, public=public)
        hub(run, tmp_path / f"out-{public}", ["two"], [], **changes, api=api)
        assert api.sent == [("me/two", not public)]
    assert "uploaded: https://hub/me/two" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "bases", "message"),
    [
        ({"upload": True}, [], "--upload: needs to know where to; say --owner OWNER"),
        ({"public": True}, [], "--public: has no effect without --upload"),
        ({}, ["base"], "--base base: is not of the form NAME=OWNER/NAME"),
    ],
)
def test_options_that_do_not_fit_are_refused(run, tmp_path, changes, bases, message):
    with pytest.raises(InputError, match=message):
        hub(run, tmp_path / "out", [], bases, **options(**changes))
    assert not (tmp_path / "out").exists()
