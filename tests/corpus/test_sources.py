from __future__ import annotations

import dataclasses
import gzip
import pickle
from pathlib import Path

import pytest

from biomistral.corpus import sources
from biomistral.corpus.documents import Dropped
from biomistral.corpus.sources import find_sources, list_shards, read_documents, read_shard
from biomistral.errors import InputError
from biomistral.recipe.settings import CorpusSettings


def test_files_come_sorted_and_once(articles_folder: Path) -> None:
    settings = CorpusSettings(
        articles=[
            f"{articles_folder}/**/*.nxml",
            f"{articles_folder}/**/*.xml",
            f"{articles_folder}/deep/*",
        ]
    )
    names = [source.name for source in find_sources(settings)[0]]
    assert names == [
        "5.nxml", "6-broken.xml", "7-short.xml", "8-copy.xml", "9-nc.xml",
        "deep/1.xml", "deep/2.xml", "deep/3.xml", "deep/4.xml",
    ]  # fmt: skip


def test_a_pattern_without_files_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"corpus 'corpus', articles: the pattern .*\*\.xml' matches no files"
    ):
        find_sources(CorpusSettings(articles=[f"{tmp_path}/*.xml"]))


def test_a_pattern_with_files_of_another_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    with pytest.raises(
        InputError, match=r"matches 1 files, none of a kind.*allowed are \.xml, \.nxml"
    ):
        find_sources(CorpusSettings(articles=[f"{tmp_path}/*"]))


def test_a_packed_article_is_the_article(articles_folder: Path, tmp_path: Path) -> None:
    data = (articles_folder / "deep" / "1.xml").read_bytes()
    (tmp_path / "1.xml.gz").write_bytes(gzip.compress(data))
    plain = next(read_documents(CorpusSettings(articles=[f"{articles_folder}/deep/1.xml"])))
    packed = next(read_documents(CorpusSettings(articles=[f"{tmp_path}/1.xml.gz"])))
    assert packed.text == plain.text
    assert (packed.id, packed.file) == ("PMC1", "1.xml.gz")


def test_progress_tells_files(articles_folder: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    settings = CorpusSettings(articles=[f"{articles_folder}/deep/*.xml"])
    list(read_documents(settings, lambda done, total, name: calls.append((done, total, name))))
    assert calls[0] == (0, 4, "1.xml")
    assert calls[-1] == (3, 4, "4.xml")


def test_the_division_into_shards_depends_on_the_files_only(
    articles_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "SHARD_FILES", 4)
    settings = CorpusSettings(articles=[f"{articles_folder}/**/*.xml", f"{articles_folder}/*.nxml"])
    shards = list_shards(settings)
    assert [shard.name for shard in shards] == [
        "articles-00000",
        "articles-00001",
        "articles-00002",
    ]
    assert [name for shard in shards for name in shard.names] == [
        source.name for source in find_sources(settings)[0]
    ]
    assert pickle.loads(pickle.dumps(shards)) == shards == list_shards(settings)


def test_a_changed_file_changes_the_digest_of_its_shard_only(
    articles_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "SHARD_FILES", 5)
    settings = CorpusSettings(articles=[f"{articles_folder}/**/*.*ml"])
    before = list_shards(settings)
    (articles_folder / "6-broken.xml").write_bytes(b"<article/>")
    after = list_shards(settings)
    assert after[0] != before[0]
    assert dataclasses.replace(after[0], digest=before[0].digest) == before[0]
    assert after[1:] == before[1:]


def test_a_shard_gives_every_document_kept_or_dropped_with_its_reason(
    articles_folder: Path,
) -> None:
    settings = CorpusSettings(articles=[f"{articles_folder}/**/*.*ml"])
    (shard,) = list_shards(settings)
    items = list(read_shard(shard, settings))
    assert [(i.document.file, i.reason) for i in items if isinstance(i, Dropped)] == [
        ("6-broken.xml", "not_well_formed"),
        ("7-short.xml", "too_short"),
        ("9-nc.xml", "licence_not_allowed"),
    ]
    assert {i.language for i in items if not isinstance(i, Dropped)} == {"en", "pt"}
