from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def ids(tmp_path: Path) -> Path:
    path = tmp_path / "ids.txt"
    path.write_text("PMC1\n")
    return path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give either --ids (a file of ids) or --inventory"),
        (["--ids", "{ids}", "--inventory", "{ids}"], "give either --ids"),
        (["--ids", "{ids}", "--licences", "CC-BY,GPL"], "'GPL' is no licence; allowed are CC0"),
        (["--ids", "{ids}", "--licences", ","], "'nothing' is no licence"),
        (["--ids", "{ids}", "--base-url", "pmc"], "is no address; write it like"),
        (["--inventory", "{ids}"], "no article is named"),
    ],
)
def test_what_cannot_be_fetched_is_one_clear_line(
    command, ids: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    finished = command("corpus", "fetch", tmp_path / "out", *(w.format(ids=ids) for w in words))
    assert finished.status == 2
    assert message in finished.err
    assert finished.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_there_is_a_usage_error(command, tmp_path: Path) -> None:
    finished = command("corpus", "fetch", tmp_path / "out", "--ids", tmp_path / "none")
    assert finished.status == 2
    assert "does not exist" in finished.err


def test_a_report_of_what_is_no_corpus_is_one_clear_line(command, tmp_path: Path) -> None:
    finished = command("corpus", "report", tmp_path, "--out", tmp_path / "page.html")
    assert finished.status == 2
    assert "is no corpus" in finished.err
