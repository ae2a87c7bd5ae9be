"""Plain texts as documents: ``.txt`` (one a file) and ``.jsonl`` (one a line), each also ``.gz``.

A line has the field ``text`` and may have ``id``, ``language``, ``licence`` and ``title``. What
cannot be read is a document with a problem, never a gap. Knows nothing about articles or what is
kept.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from biomistral.corpus.documents import Document, language_code
from biomistral.corpus.files import UnreadableError, damage_named, open_unpacked, read_bytes
from biomistral.corpus.licences import canonical


def read_texts(path: Path, name: str) -> Iterator[Document]:
    """Yield the documents of one file, recorded under ``name``."""
    try:
        if ".jsonl" in path.suffixes[-2:]:
            yield from _read_lines(path, name)
        else:
            text = read_bytes(path).decode("utf-8-sig")
            yield plain_text(name, name, {"text": text})
    except UnreadableError as error:
        yield unreadable(name, error.reason, error.detail)
    except UnicodeDecodeError as error:
        yield unreadable(name, "not_utf8", str(error))


def unreadable(name: str, reason: str, detail: str, id_: str = "") -> Document:
    """Return what stands for a file, or a part of it, that cannot be read."""
    return Document(id=id_ or name, file=name, text="", problem=reason, detail=detail)


def plain_text(id_: str, file: str, fields: dict[str, Any]) -> Document:
    """Return the user's own text: no licence is asked for, but one that is given counts."""
    text = fields["text"].replace("\r\n", "\n").encode("utf-8", "replace").decode()
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


def _read_lines(path: Path, name: str) -> Iterator[Document]:
    """One document per line that is not blank; the file may be larger than memory."""
    with damage_named(), open_unpacked(path) as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                yield _of_line(name, number, line.removeprefix(b"\xef\xbb\xbf"))


def _of_line(name: str, number: int, line: bytes) -> Document:
    key = f"{name}:{number}"
    try:
        fields = json.loads(line.decode())
    except UnicodeDecodeError as error:
        return unreadable(name, "not_utf8", str(error), id_=key)
    except (ValueError, RecursionError) as error:
        return unreadable(name, "not_well_formed", str(error), id_=key)
    if not isinstance(fields, dict) or not isinstance(fields.get("text"), str):
        return unreadable(name, "no_text", "the line has no field text", id_=key)
    return plain_text(str(fields.get("id") or key), name, fields)
