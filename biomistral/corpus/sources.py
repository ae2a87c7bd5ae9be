"""Find the files that patterns name and read them as documents, one after the other.

Articles: ``.xml`` and ``.nxml``; plain texts: ``.txt`` (one document a file) and ``.jsonl`` (one
a line, with ``text`` and optionally ``id``, ``language``, ``licence``, ``title``); each may be
compressed (``.gz``). Files come in the order of their names, whatever the system lists first. What
cannot be read is a document with a problem, never a gap. Knows nothing about what is kept.
"""

from __future__ import annotations

import contextlib
import glob
import gzip
import json
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from biomistral.corpus.documents import Document, language_code
from biomistral.corpus.jats import UnreadableError, read_article
from biomistral.corpus.licences import canonical
from biomistral.errors import InputError
from biomistral.recipe.settings import CorpusSettings

ARTICLE_SUFFIXES = (".xml", ".nxml", ".xml.gz", ".nxml.gz")
TEXT_SUFFIXES = (".txt", ".jsonl", ".txt.gz", ".jsonl.gz")
# A file, once unpacked; the largest article of PMC known to us has 30 MB. Stops gzip bombs.
MAX_FILE_BYTES = 200_000_000


@dataclass(frozen=True, slots=True)
class Source:
    """One file: ``path`` to open, ``name`` to record (below the fixed part of its pattern)."""

    path: Path
    name: str


def find_sources(settings: CorpusSettings) -> tuple[list[Source], list[Source]]:
    """Files of articles and of plain texts, each sorted by path, each file once.

    Raises ``InputError`` for a pattern that matches no file of the right kind.
    """
    return (
        _find(settings.articles, ARTICLE_SUFFIXES, f"corpus {settings.name!r}, articles"),
        _find(settings.texts, TEXT_SUFFIXES, f"corpus {settings.name!r}, texts"),
    )


def source_files(settings: CorpusSettings) -> list[tuple[str, Path]]:
    """Name and path of all files a corpus is read from, in order: what its fingerprint is made of."""
    articles, texts = find_sources(settings)
    return [(source.name, source.path) for source in (*articles, *texts)]


def read_documents(
    settings: CorpusSettings, on_file: Callable[[int, int, str], None] | None = None
) -> Iterator[Document]:
    """Yield every document of every source, articles first.

    ``on_file(done, total, name)`` is called before each file.
    """
    articles, texts = find_sources(settings)
    total = len(articles) + len(texts)
    for index, source in enumerate((*articles, *texts)):
        if on_file is not None:
            on_file(index, total, source.name)
        yield from (_read_article if index < len(articles) else _read_text)(source)


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


def _read_article(source: Source) -> Iterator[Document]:
    try:
        yield from read_article(_read_bytes(source.path), source.name)
    except UnreadableError as error:
        yield _problem(source, error.reason, error.detail)


def _read_text(source: Source) -> Iterator[Document]:
    try:
        if ".jsonl" in source.path.suffixes[-2:]:
            yield from _read_lines(source)
        else:
            text = _read_bytes(source.path).decode("utf-8-sig")
            yield _plain_text(source.name, source.name, {"text": text})
    except UnreadableError as error:
        yield _problem(source, error.reason, error.detail)
    except UnicodeDecodeError as error:
        yield _problem(source, "not_utf8", str(error))


def _read_lines(source: Source) -> Iterator[Document]:
    """One document per line that is not blank; the file may be larger than memory."""
    with _damage_named(), _open(source.path) as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                yield _of_line(source, number, line.removeprefix(b"\xef\xbb\xbf"))


def _of_line(source: Source, number: int, line: bytes) -> Document:
    key = f"{source.name}:{number}"
    try:
        fields = json.loads(line.decode())
    except UnicodeDecodeError as error:
        return _problem(source, "not_utf8", str(error), id_=key)
    except (ValueError, RecursionError) as error:
        return _problem(source, "not_well_formed", str(error), id_=key)
    if not isinstance(fields, dict) or not isinstance(fields.get("text"), str):
        return _problem(source, "no_text", "the line has no field text", id_=key)
    return _plain_text(str(fields.get("id") or key), source.name, fields)


def _plain_text(id_: str, file: str, fields: dict[str, Any]) -> Document:
    """The user's own text: no licence is asked for, but one that is given counts."""
    text = fields["text"].replace("\r\n", "\n").encode("utf-8", "replace").decode()
    text = unicodedata.normalize("NFC", text).strip()
    licence, language = fields.get("licence"), fields.get("language")
    return Document(
        id=id_,
        file=file,
        text=text,
        part="text",
        language=language_code(str(language)) if language else None,
        licence=canonical(str(licence)) if licence else None,
        needs_licence=bool(licence),
        title=str(fields.get("title") or ""),
        problem="" if text else "empty",
    )


def _problem(source: Source, reason: str, detail: str, id_: str = "") -> Document:
    return Document(id=id_ or source.name, file=source.name, text="", problem=reason, detail=detail)


def _read_bytes(path: Path) -> bytes:
    """Bytes of a file, unpacked, unless they are too many or the archive is damaged."""
    with _damage_named(), _open(path) as stream:
        data = stream.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise UnreadableError("too_large", f"more than {MAX_FILE_BYTES} bytes")
    return data


def _open(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


@contextlib.contextmanager
def _damage_named() -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        detail = getattr(error, "strerror", None) or str(error)
        raise UnreadableError("not_readable", detail) from None
