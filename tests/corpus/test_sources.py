from __future__ import annotations

import dataclasses
import gzip
import pickle
from pathlib import Path

import pytest

from biomistral.corpus import sources
from biomistral.corpus.documents import Document, Dropped
from biomistral.corpus.finding import find_articles
from biomistral.corpus.sources import list_shards, read_shard
from biomistral.recipe.settings import CorpusSettings


def first(settings: CorpusSettings) -> Document:
    item = next(read_shard(list_shards(settings)[0], settings))
    assert isinstance(item, Document)
    return item


def test_a_packed_article_is_the_article(articles_folder: Path, tmp_path: Path) -> None:
    data = (articles_folder / "deep" / "1.xml").read_bytes()
    (tmp_path / "1.xml.gz").write_bytes(gzip.compress(data))
    plain = first(CorpusSettings(articles=[f"{articles_folder}/deep/1.xml"]))
    packed = first(CorpusSettings(articles=[f"{tmp_path}/1.xml.gz"]))
    assert packed.text == plain.text
    assert (packed.id, packed.file) == ("PMC1", "1.xml.gz")


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
        source.name for source in find_articles(settings)
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
