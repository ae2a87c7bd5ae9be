from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa

from biomistral import __version__, versions


def test_versions_are_those_of_the_loaded_libraries() -> None:
    found = versions.library_versions()
    assert found["python"] == platform.python_version()
    assert found["biomistral"] == __version__
    assert found["pyarrow"] == pa.__version__


def test_a_library_that_is_not_installed_is_left_out(monkeypatch) -> None:
    monkeypatch.setattr(versions, "LIBRARIES", ("numpy", "no-such-library"))
    found = versions.library_versions.__wrapped__()
    assert found["numpy"] == np.__version__
    assert "no-such-library" not in found


def _commit_seen_from(folder: Path, monkeypatch) -> str | None:
    monkeypatch.setattr(versions, "__file__", str(folder / "versions.py"))
    return versions.commit.__wrapped__()


def _git(folder: Path, *words: str) -> str:
    author = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    finished = subprocess.run(
        ["git", "-C", folder, *author, *words], check=True, capture_output=True, text=True
    )
    return finished.stdout.strip()


def test_the_commit_is_that_of_the_checkout_and_says_if_it_was_edited(
    tmp_path: Path,
    monkeypatch,
) -> None:
    module = tmp_path / "versions.py"
    module.write_text("1")
    _git(tmp_path, "init", "--quiet")
    _git(tmp_path, "add", "versions.py")
    _git(tmp_path, "commit", "--quiet", "-m", "first")
    head = _git(tmp_path, "rev-parse", "HEAD")
    assert _commit_seen_from(tmp_path, monkeypatch) == head
    module.write_text("2")
    assert _commit_seen_from(tmp_path, monkeypatch) == f"{head}+changes"


def test_a_repository_that_merely_lies_around_us_has_no_say(tmp_path: Path, monkeypatch) -> None:
    _git(tmp_path, "init", "--quiet")
    (tmp_path / "versions.py").write_text("1")  # not tracked: installed into it
    assert _commit_seen_from(tmp_path, monkeypatch) is None
