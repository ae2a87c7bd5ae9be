"""Divide what the settings name into shards, and read a shard as documents.

A shard is a run of files, or a part of one large file: the division depends on the files and on
nothing else, and any process can read a shard alone. What cannot be read is a dropped document with
its reason, never a gap. Knows nothing about duplicates, tokens or workers.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from biomistral.corpus.articles import articles_of_package, read_articles, sidecar_of, stem_of
from biomistral.corpus.documents import Document, Dropped
from biomistral.corpus.filters import Overlap, reason_to_drop, with_language
from biomistral.corpus.finding import Source, find_articles, find_texts
from biomistral.corpus.packages import PACKAGE_SUFFIXES, file_list_of
from biomistral.corpus.texts import parts_of, read_texts
from biomistral.ngrams import Hashes, read_runs
from biomistral.recipe.settings import CorpusSettings

SHARD_FILES = 500  # about 40 MB of articles: seconds of work

Kind = Literal["articles", "package", "texts"]


@dataclass(frozen=True, slots=True)
class Shard:
    """Files that are read together, in order: small enough to send to another process."""

    name: str  # such as articles-00012; the names of all shards of a corpus sort in their order
    kind: Kind
    root: str  # the folder that the names of the files are below
    names: tuple[str, ...]
    digest: str  # SHA-256 over names, sizes and times of the files and their metadata
    start: int = 0  # of a part of a file of texts: first byte (.jsonl) or row group (.parquet)
    stop: int | None = None


def list_shards(settings: CorpusSettings) -> list[Shard]:
    """Divide everything the settings name into shards, articles first.

    Raises ``InputError`` for a pattern that matches no file of the right kind.
    """
    articles = list(_divide(find_articles(settings)))
    texts = [
        _shard("texts", root, [source], start, stop)
        for source in find_texts(settings)
        for root in [_root(source)]
        for start, stop in parts_of(Path(source.path))
    ]
    return [
        dataclasses.replace(shard, name=f"{label}-{number:05d}")
        for label, group in (("articles", articles), ("texts", texts))
        for number, shard in enumerate(group)
    ]


def read_shard(
    shard: Shard, settings: CorpusSettings, excluded: Path | None = None
) -> Iterator[Document | Dropped]:
    """Yield the documents of a shard in order, those that do not enter with the reason.

    Everything is judged that can be judged of a document alone: what is left to the caller is
    whether it repeats another one. ``excluded`` is a file of word runs (``ngrams``) that no
    document may contain.
    """
    overlap = Overlap(*_runs(excluded)) if excluded else None
    for item in _read(shard, settings):
        if isinstance(item, Dropped):
            yield item
            continue
        document = with_language(item)
        reason = reason_to_drop(document, settings)
        if not reason and overlap:
            reason = overlap.reason_to_drop(document)
        yield Dropped(document, reason, document.detail) if reason else document


def is_unchanged(shard: Shard) -> bool:
    """Whether the files of a shard are here as they were when it was divided off."""
    files = [Source(shard.root + name, name) for name in shard.names]
    try:
        return _shard(shard.kind, shard.root, files, shard.start, shard.stop).digest == shard.digest
    except OSError:
        return False


def source_files(settings: CorpusSettings) -> Iterator[tuple[str, Path]]:
    """Name and path of all files a corpus is read from, in order: what its fingerprint is made of."""
    for find in (find_articles, find_texts):
        for source in find(settings):
            yield source.name, Path(source.path)
            beside = _beside(source)
            if beside:
                yield f"{source.name} ({beside.name})", beside


def _read(shard: Shard, settings: CorpusSettings) -> Iterator[Document | Dropped]:
    if shard.kind == "texts":
        (name,) = shard.names
        yield from read_texts(
            Path(shard.root, name), name, shard.start, shard.stop, column=settings.text_column
        )
    elif shard.kind == "package":
        (name,) = shard.names
        yield from articles_of_package(Path(shard.root, name), name, tuple(settings.keep))
    else:
        yield from read_articles(shard.root, shard.names, tuple(settings.keep))


@functools.lru_cache(maxsize=1)
def _runs(excluded: Path) -> tuple[Hashes, int]:
    """Read once a process, not once a shard."""
    return read_runs(excluded)


def _divide(sources: list[Source]) -> Iterator[Shard]:
    """Cut the files into runs below one folder; versions of one article stay together."""
    start = 0
    for end in range(1, len(sources) + 1):
        if end == len(sources) or _is_cut(sources, start, end):
            kind: Kind = "package" if _is_package(sources[start]) else "articles"
            yield _shard(kind, _root(sources[start]), sources[start:end])
            start = end


def _is_cut(sources: list[Source], start: int, end: int) -> bool:
    """Whether a shard that begins at ``start`` ends before ``end``."""
    last, following = sources[end - 1], sources[end]
    if _is_package(last) or _is_package(following) or _root(last) != _root(following):
        return True
    return end - start >= SHARD_FILES and stem_of(last.name) != stem_of(following.name)


def _is_package(source: Source) -> bool:
    return source.name.lower().endswith(PACKAGE_SUFFIXES)


def _root(source: Source) -> str:
    return source.path[: -len(source.name)]


def _beside(source: Source) -> Path | None:
    """The file that holds the metadata of a source, if there is one."""
    path = Path(source.path)
    return file_list_of(path) if _is_package(source) else sidecar_of(path)


def _shard(
    kind: Kind, root: str, sources: list[Source], start: int = 0, stop: int | None = None
) -> Shard:
    digest = hashlib.sha256(f"{start}-{stop}\n".encode())
    for source in sources:
        beside = None if kind == "texts" else _beside(source)
        for path in filter(None, (Path(source.path), beside)):
            facts = path.stat()
            digest.update(f"{source.name}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
    names = tuple(source.name for source in sources)
    return Shard("", kind, root, names, digest.hexdigest(), start, stop)
