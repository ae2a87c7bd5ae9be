"""A shard is whole or absent, and another job never finds it."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from biomistral.corpus import shards
from biomistral.corpus.shards import (
    Job,
    make_shard,
    read_kept,
    read_sample,
    shard_folder,
    write_job,
)
from biomistral.corpus.sketches import sketch
from biomistral.corpus.sources import list_shards
from biomistral.corpus.tokens import load_tokenizer
from biomistral.errors import InputError
from biomistral.recipe.corpora import CorpusSettings


@pytest.fixture(scope="module")
def document_tokenizer(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save_pretrained(folder)
    return load_tokenizer(folder)


@pytest.fixture
def job(articles_folder: Path, document_tokenizer) -> Job:
    settings = CorpusSettings(
        articles=[f"{articles_folder}/**/*.xml", f"{articles_folder}/**/*.nxml"], minimum_words=20
    )
    return Job(settings, document_tokenizer.parts, 42, None, "0" * 64)


def test_a_shard_holds_lines_tokens_and_records_of_its_documents(
    job: Job, document_tokenizer, tmp_path: Path
) -> None:
    file = write_job(tmp_path / "work", job)
    (shard,) = list_shards(job.settings)
    folder = make_shard(file, shard)
    assert folder == shard_folder(file, job.key, shard)
    lines = pq.read_table(folder / "documents.parquet").to_pylist()
    kept = read_kept(folder)
    enters = [number for number, line in enumerate(lines) if not line["dropped"]]
    assert kept["line"].tolist() == enters
    assert kept["length"].tolist() == [lines[i]["num_tokens"] for i in enters]
    assert {line["dropped"] for line in lines} >= {"not_well_formed", "licence_not_allowed"}
    text, ids = read_sample(folder, kept, np.dtype("<u2"))
    document_tokenizer.check_ids(text, ids)
    assert int(kept["digest"][0]) == sketch(text)[0]
    assert lines[enters[0]]["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    size = (folder / "tokens.bin").stat().st_size
    assert size == 2 * int(kept["length"].sum())


def test_the_same_work_is_not_done_twice_and_other_work_is(job: Job, tmp_path: Path) -> None:
    file = write_job(tmp_path / "work", job)
    (shard,) = list_shards(job.settings)
    folder = make_shard(file, shard)
    before = (folder / "tokens.bin").stat().st_mtime_ns
    assert make_shard(file, shard) == folder
    assert (folder / "tokens.bin").stat().st_mtime_ns == before
    other = dataclasses.replace(job, key="1" * 64)
    touched = dataclasses.replace(shard, digest="2" * 64)
    part = dataclasses.replace(shard, start=100)
    places = {
        folder,
        make_shard(write_job(tmp_path / "work", other), shard),
        shard_folder(file, job.key, touched),
        shard_folder(file, job.key, part),
    }
    assert len(places) == 4
    moved = dataclasses.replace(shard, root="/elsewhere/")
    assert shard_folder(file, job.key, moved) == folder


def test_a_shard_that_fails_leaves_nothing(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_job(tmp_path / "work", job)
    (shard,) = list_shards(job.settings)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards.np, "save", fail)
    with pytest.raises(OSError, match="No space"):
        make_shard(file, shard)
    assert [path.name for path in (tmp_path / "work").iterdir()] == [file.name]


def test_files_that_are_not_as_they_were_are_no_dropped_articles(
    job: Job, articles_folder: Path, tmp_path: Path
) -> None:
    """As on a machine of a cluster that does not see them, or while somebody changes them."""
    file = write_job(tmp_path / "work", job)
    (shard,) = list_shards(job.settings)
    gone = dataclasses.replace(shard, root=str(tmp_path / "elsewhere") + "/")
    changed = dataclasses.replace(shard, digest="0" * 64)
    for other in (gone, changed):
        with pytest.raises(
            InputError, match=r"articles-00000 .* as they were when the build began"
        ):
            make_shard(file, other)
    assert not list((tmp_path / "work").glob("articles-*"))


def test_a_draw_follows_the_article_and_the_seed() -> None:
    draws = [shards.draw_of(f"PMC{i}", 1) for i in range(500)]
    assert len(set(draws)) == 500
    assert shards.draw_of("PMC1", 1) == shards.draw_of("PMC1", 1) != shards.draw_of("PMC1", 2)
    assert np.mean(draws) / 2**64 == pytest.approx(0.5, abs=0.06)
