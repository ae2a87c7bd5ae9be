from __future__ import annotations

from pathlib import Path

import pytest

from biomistral.corpus.finding import find_articles, find_texts
from biomistral.errors import InputError
from biomistral.recipe.settings import CorpusSettings


def names(*patterns: str) -> list[str]:
    return [source.name for source in find_articles(CorpusSettings(articles=list(patterns)))]


def test_files_come_sorted_and_once(articles_folder: Path) -> None:
    found = names(
        f"{articles_folder}/**/*.nxml", f"{articles_folder}/**/*.xml", f"{articles_folder}/deep/*"
    )
    assert found == [
        "5.nxml", "6-broken.xml", "7-short.xml", "8-copy.xml", "9-nc.xml",
        "deep/1.xml", "deep/2.xml", "deep/3.xml", "deep/4.xml",
    ]  # fmt: skip


def test_a_folder_means_every_file_in_it_that_can_be_read(articles_folder: Path) -> None:
    (articles_folder / "deep" / "notes.docx").write_bytes(b"")
    (articles_folder / ".hidden").mkdir()
    (articles_folder / ".hidden" / "a.xml").write_bytes(b"")
    (articles_folder / "deep" / ".part.xml").write_bytes(b"")
    assert names(str(articles_folder)) == names(f"{articles_folder}/**/*.*ml")


def test_a_file_may_be_named_alone(articles_folder: Path) -> None:
    assert names(f"{articles_folder}/deep/2.xml") == ["2.xml"]


def test_a_relative_pattern_is_below_the_folder_of_work(
    articles_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(articles_folder)
    (source,) = find_articles(CorpusSettings(articles=["deep/1.*"]))
    assert (source.path, source.name) == (str(articles_folder / "deep/1.xml"), "1.xml")


def test_a_pattern_without_files_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"corpus 'corpus', articles: the pattern .*\*\.xml' matches no files"
    ):
        names(f"{tmp_path}/*.xml")


def test_a_folder_without_one_readable_article_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    for pattern in (f"{tmp_path}/*", str(tmp_path)):
        with pytest.raises(
            InputError, match=r"matches 1 files, none of a kind.*allowed are \.xml, \.nxml"
        ):
            names(pattern)


def test_texts_and_articles_are_told_apart_by_their_names(articles_folder: Path) -> None:
    (articles_folder / "a.jsonl").write_bytes(b"")
    found = find_texts(CorpusSettings(texts=[str(articles_folder)]))
    assert [source.name for source in found] == ["a.jsonl"]
