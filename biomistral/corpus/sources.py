"""Find the files that patterns name, divide them into shards, and read a shard as documents.

Files come in the order of their paths, whatever the system lists first, and a shard is a run of
them: its division depends on the files and on nothing else. Any process can read a shard alone.
What cannot be read is a dropped document with its reason, never a gap. Knows nothing about
duplicates, tokens or workers.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from biomistral.corpus.documents import Document, Dropped
from biomistral.corpus.files import UnreadableError, read_bytes
from biomistral.corpus.filters import Overlap, reason_to_drop, with_language
from biomistral.corpus.jats import read_article
from biomistral.corpus.texts import read_texts, unreadable
from biomistral.errors import InputError
from biomistral.ngrams import read_runs
from biomistral.recipe.settings import CorpusSettings

ARTICLE_SUFFIXES = (".xml", ".nxml", ".xml.gz", ".nxml.gz")
TEXT_SUFFIXES = (".txt", ".jsonl", ".txt.gz", ".jsonl.gz")
SHARD_FILES = 500  # about 40 MB of articles: seconds of work

Kind = Literal["articles", "texts"]


@dataclass(frozen=True, slots=True)
class Source:
    """One file: ``path`` to open, ``name`` to record (below the fixed part of its pattern)."""

    path: Path
    name: str


@dataclass(frozen=True, slots=True)
class Shard:
    """Files that are read together, in order: small enough to send to another process."""

    name: str  # such as articles-00012
    kind: Kind
    root: str  # the folder that the names of the files are below
    names: tuple[str, ...]
    digest: str  # SHA-256 over names, sizes and times of the files


def list_shards(settings: CorpusSettings) -> list[Shard]:
    """Divide everything the settings name into shards, articles first.

    Raises ``InputError`` for a pattern that matches no file of the right kind.
    """
    articles, texts = find_sources(settings)
    return [*_divide("articles", articles, SHARD_FILES), *_divide("texts", texts, 1)]


def read_shard(
    shard: Shard, settings: CorpusSettings, excluded: Path | None = None
) -> Iterator[Document | Dropped]:
    """Yield the documents of a shard in order, those that do not enter with the reason.

    Everything is judged that can be judged of a document alone: what is left to the caller is
    whether it repeats another one. ``excluded`` is a file of word runs (``ngrams``) that no
    document may contain.
    """
    overlap = Overlap(*read_runs(excluded)) if excluded else None
    for document in map(with_language, _read(shard)):
        reason = reason_to_drop(document, settings)
        if not reason and overlap:
            reason = overlap.reason_to_drop(document)
        yield Dropped(document, reason, document.detail) if reason else document


def source_files(settings: CorpusSettings) -> list[tuple[str, Path]]:
    """Name and path of all files a corpus is read from, in order: what its fingerprint is made of."""
    articles, texts = find_sources(settings)
    return [(source.name, source.path) for source in (*articles, *texts)]


def read_documents(
    settings: CorpusSettings, on_file: Callable[[int, int, str], None] | None = None
) -> Iterator[Document]:
    """Yield every document of every source, articles first, nothing judged.

    ``on_file(done, total, name)`` is called before each file.
    """
    articles, texts = find_sources(settings)
    total = len(articles) + len(texts)
    for index, source in enumerate((*articles, *texts)):
        if on_file is not None:
            on_file(index, total, source.name)
        read = _read_article if index < len(articles) else read_texts
        yield from read(source.path, source.name)


def find_sources(settings: CorpusSettings) -> tuple[list[Source], list[Source]]:
    """Files of articles and of plain texts, each sorted by path, each file once.

    Raises ``InputError`` for a pattern that matches no file of the right kind.
    """
    return (
        _find(settings.articles, ARTICLE_SUFFIXES, f"corpus {settings.name!r}, articles"),
        _find(settings.texts, TEXT_SUFFIXES, f"corpus {settings.name!r}, texts"),
    )


def _find(patterns: list[str], suffixes: tuple[str, ...], where: str) -> list[Source]:
    found: dict[str, Source] = {}
    for pattern in patterns:
        expanded = str(Path(pattern).expanduser())
        root = _fixed_part(expanded)
        matches = [Path(match) for match in glob.glob(expanded, recursive=True)]  # noqa: PTH207
        usable = [p for p in matches if p.name.lower().endswith(suffixes) and p.is_file()]
        if not usable:
            raise InputError(
                f"{where}: the pattern {pattern!r} matches {len(matches) or 'no'} files"
                f"{', none of a kind that can be read' if matches else ''} "
                f"(looked from {Path.cwd()}); allowed are {', '.join(suffixes)}; "
                "mend the pattern, or put files there"
            )
        for path in usable:
            key = str(path.absolute())
            found.setdefault(key, Source(path, path.relative_to(root).as_posix()))
    return [found[key] for key in sorted(found)]


def _fixed_part(pattern: str) -> Path:
    """The folders of a pattern before the first wildcard; of a plain path, its folder."""
    parts = Path(pattern).parts
    fixed = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    return Path(*parts[:fixed])


def _divide(kind: Kind, sources: list[Source], most: int) -> Iterator[Shard]:
    """Cut the files into runs of at most ``most`` that lie below one folder."""
    start = 0
    number = 0
    roots = [str(source.path.absolute())[: -len(source.name)] for source in sources]
    for end in range(1, len(sources) + 1):
        if end == len(sources) or end - start == most or roots[end] != roots[start]:
            yield _shard(f"{kind}-{number:05d}", kind, roots[start], sources[start:end])
            start, number = end, number + 1


def _shard(name: str, kind: Kind, root: str, sources: list[Source]) -> Shard:
    digest = hashlib.sha256()
    for source in sources:
        facts = source.path.stat()
        digest.update(f"{source.name}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
    return Shard(name, kind, root, tuple(s.name for s in sources), digest.hexdigest())


def _read(shard: Shard) -> Iterator[Document]:
    read = _read_article if shard.kind == "articles" else read_texts
    for name in shard.names:
        yield from read(Path(shard.root, name), name)


def _read_article(path: Path, name: str) -> Iterator[Document]:
    try:
        yield from read_article(read_bytes(path), name)
    except UnreadableError as error:
        yield unreadable(name, error.reason, error.detail)
