"""Plain texts as documents: ``.txt`` (one a file), ``.jsonl`` (one a line), ``.parquet`` (one a row).

The first two may be packed (``.gz``). A line or row has its text in a field of a given name and may
have ``id``, ``language``, ``licence`` and ``title``; one without an id is named by its place: the
byte its line begins at, or the number of its row. Large files are read in parts. What cannot be
read is a document with a problem, never a gap. Knows nothing about articles or what is kept.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from biomistral.corpus import files
from biomistral.corpus.documents import Document, language_code
from biomistral.corpus.files import UnreadableError, damage_named, open_unpacked, read_bytes
from biomistral.corpus.licences import canonical

TEXT_SUFFIXES = (".txt", ".jsonl", ".txt.gz", ".jsonl.gz", ".parquet")
PART_BYTES = 64_000_000  # of one file, that are read together
_FIELDS = ("id", "language", "licence", "title")
_BATCH_ROWS = 256


def parts_of(path: Path) -> list[tuple[int, int | None]]:
    """Cut a file into parts: bytes of ``.jsonl``, row groups of ``.parquet``, else the whole."""
    if path.suffix == ".jsonl":
        size = path.stat().st_size
        starts = range(0, size, PART_BYTES)
        return [(start, min(start + PART_BYTES, size)) for start in starts] or [(0, None)]
    if path.suffix == ".parquet":
        return _groups_of_rows(path)
    return [(0, None)]


def read_texts(
    path: Path, name: str, start: int = 0, stop: int | None = None, *, column: str = "text"
) -> Iterator[Document]:
    """Yield the documents of a file, or of one of its parts, recorded under ``name``."""
    try:
        if path.suffix == ".parquet":
            yield from _read_rows(path, name, start, stop, column)
        elif ".jsonl" in path.suffixes[-2:]:
            yield from _read_lines(path, name, start, stop, column)
        else:
            text = read_bytes(path).decode("utf-8-sig")
            yield plain_text(name, name, text, {})
    except UnreadableError as error:
        yield unreadable(name, error.reason, error.detail)
    except UnicodeDecodeError as error:
        yield unreadable(name, "not_utf8", str(error))


def unreadable(name: str, reason: str, detail: str, id_: str = "") -> Document:
    """Return what stands for a file, or a part of it, that cannot be read."""
    return Document(id=id_ or name, file=name, text="", problem=reason, detail=detail)


def plain_text(id_: str, file: str, text: str, fields: dict[str, Any]) -> Document:
    """Return the user's own text: no licence is asked for, but one that is given counts."""
    text = text.replace("\r\n", "\n").encode("utf-8", "replace").decode()
    text = unicodedata.normalize("NFC", text).strip()
    licence, language = fields.get("licence"), fields.get("language")
    return Document(
        id=id_,
        file=file,
        text=text,
        part="text",
        declared_language=language_code(str(language)) if language else None,
        licence=canonical(str(licence)) if licence else None,
        licence_source="field" if licence else "",
        needs_licence=bool(licence),
        title=str(fields.get("title") or ""),
        problem="" if text else "empty",
    )


def _read_lines(
    path: Path, name: str, start: int, stop: int | None, column: str
) -> Iterator[Document]:
    """One document per line that begins in the part and is not blank."""
    with damage_named(), open_unpacked(path) as stream:
        place = start
        if start:
            stream.seek(start - 1)
            place += len(stream.readline()) - 1  # a line that began before belongs to that part
        while stop is None or place < stop:
            line = stream.readline(files.MAX_FILE_BYTES + 1)
            if not line:
                return
            if len(line) > files.MAX_FILE_BYTES:
                raise UnreadableError("too_large", f"the line at byte {place}")
            if line.strip():
                yield _of_line(name, f"{name}:{place}", line.removeprefix(b"\xef\xbb\xbf"), column)
            place += len(line)


def _of_line(name: str, key: str, line: bytes, column: str) -> Document:
    try:
        fields = json.loads(line.decode())
    except UnicodeDecodeError as error:
        return unreadable(name, "not_utf8", str(error), id_=key)
    except (ValueError, RecursionError) as error:
        return unreadable(name, "not_well_formed", str(error), id_=key)
    if not isinstance(fields, dict) or not isinstance(fields.get(column), str):
        return unreadable(name, "no_text", f"the line has no field {column}", id_=key)
    return plain_text(_id_of(fields, key), name, fields[column], fields)


def _id_of(fields: dict[str, Any], key: str) -> str:
    """The id that a line or row gives (0 is one), else its place."""
    given = fields.get("id")
    return key if given is None else str(given) or key


def _groups_of_rows(path: Path) -> list[tuple[int, int | None]]:
    """First and last row group of each part; a file that cannot be read is one part, to say so."""
    try:
        facts = pq.read_metadata(path)
    except (OSError, pa.ArrowException):
        return [(0, None)]
    parts: list[tuple[int, int | None]] = []
    start = size = 0
    for index in range(facts.num_row_groups):
        size += facts.row_group(index).total_byte_size
        if size >= PART_BYTES or index == facts.num_row_groups - 1:
            parts.append((start, index + 1))
            start, size = index + 1, 0
    return parts or [(0, None)]


def _read_rows(
    path: Path, name: str, start: int, stop: int | None, column: str
) -> Iterator[Document]:
    """One document per row; only the columns that are used are read."""
    try:
        with pq.ParquetFile(path) as table:
            present = table.schema_arrow.names
            if column not in present:
                raise UnreadableError(
                    "no_text", f"no column {column!r}; it has {', '.join(map(str, present))}"
                )
            groups = range(start, table.num_row_groups if stop is None else stop)
            row = sum(table.metadata.row_group(index).num_rows for index in range(start))
            wanted = [column, *(field for field in _FIELDS if field in present)]
            for batch in table.iter_batches(_BATCH_ROWS, row_groups=list(groups), columns=wanted):
                for fields in batch.to_pylist():
                    yield _of_row(name, f"{name}:{row}", fields, column)
                    row += 1
    except (OSError, pa.ArrowException) as error:
        raise UnreadableError("not_readable", str(error).splitlines()[0]) from None


def _of_row(name: str, key: str, fields: dict[str, Any], column: str) -> Document:
    text = fields[column]
    if not isinstance(text, str):
        return unreadable(name, "no_text", f"column {column} holds no text there", id_=key)
    return plain_text(_id_of(fields, key), name, text, fields)
