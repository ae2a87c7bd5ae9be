from __future__ import annotations

import os
from pathlib import Path

import pytest

from biomistral import artifacts
from biomistral.pipeline.digests import NAME, FileDigests


def _settled(path: Path, text: str, seconds: int = 1000) -> Path:
    path.write_text(text)
    os.utime(path, (seconds, seconds))
    return path


@pytest.fixture
def read(monkeypatch) -> list[Path]:
    """The files whose bytes were read, in order."""
    paths: list[Path] = []
    digest = artifacts.file_digest
    monkeypatch.setattr(artifacts, "file_digest", lambda path: paths.append(path) or digest(path))
    return paths


def _digest(root: Path, path: Path) -> str:
    digests = FileDigests(root)
    found = digests(path)
    digests.save()
    return found


def test_an_unchanged_file_is_read_once(tmp_path: Path, read: list[Path]) -> None:
    file = _settled(tmp_path / "a.txt", "a")
    assert _digest(tmp_path, file) == _digest(tmp_path, file)
    assert read == [file]


@pytest.mark.parametrize(("text", "seconds"), [("ab", 1000), ("b", 1001)])
def test_another_size_or_time_is_a_change(
    text: str, seconds: int, tmp_path: Path, read: list[Path]
) -> None:
    file = _settled(tmp_path / "a.txt", "a")
    before = _digest(tmp_path, file)
    _settled(file, text, seconds)
    assert _digest(tmp_path, file) != before
    assert read == [file, file]


def test_a_file_of_this_moment_is_not_remembered(tmp_path: Path, read: list[Path]) -> None:
    file = tmp_path / "a.txt"
    file.write_text("a")
    _digest(tmp_path, file)
    assert not (tmp_path / NAME).exists()


def test_a_run_that_has_no_folder_gets_none(tmp_path: Path) -> None:
    _digest(tmp_path / "run", _settled(tmp_path / "a.txt", "a"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("content", ["{", "[1]", '{"a": 1}', '{"a": [1, 2]}', "null"])
def test_a_damaged_memory_is_forgotten(content: str, tmp_path: Path) -> None:
    file = _settled(tmp_path / "a.txt", "a")
    (tmp_path / NAME).write_text(content)
    assert _digest(tmp_path, file) == artifacts.file_digest(file)
    assert str(file) in (tmp_path / NAME).read_text()


def test_a_file_put_in_place_of_another_with_its_size_and_time_is_a_change(
    tmp_path: Path, read: list[Path]
) -> None:
    file = _settled(tmp_path / "a.txt", "a")
    before = _digest(tmp_path, file)
    _settled(tmp_path / "b.txt", "b").replace(file)
    assert _digest(tmp_path, file) != before
