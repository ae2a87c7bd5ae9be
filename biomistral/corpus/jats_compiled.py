"""Read an article through the compiled loops of ``jats.c``, where they can: most files.

The parser still judges: it reads the whole file, building nothing, and what it refuses or remarks on
is not for here. Then the loops find the text of the bodies, and the parser makes a tree of the rest,
a fifth of a file, in which the bodies and back matter are empty. Where there is no compiler, and
for files with entities of their own, other encodings or more than 10 MB, the answer is None, and
``jats`` reads the whole tree instead, to the same result.

Knows nothing about facts of an article.
"""

from __future__ import annotations

import ctypes
import functools
import re
from ctypes import byref, c_int64
from dataclasses import dataclass, field

from lxml import etree

from biomistral.corpus import formulas, jats_text, marks
from biomistral.corpus.compiled import jats_library
from biomistral.corpus.files import UnreadableError
from biomistral.corpus.parsing import is_faultless, parse

# Texts of more than 10 MB in one place are refused by the parser only where it builds a tree.
_MOST_BYTES = 10_000_000
_DECLARED = re.compile(
    rb"""(?:\xef\xbb\xbf)?<\?xml\s[^>]*?encoding\s*=\s*["'](?!utf-8["']|us-ascii["'])""",
    re.IGNORECASE,
)
_HERE, _MATHML, _VALUES = 0, 1, 3  # as in jats.c, and the following
_KINDS = {
    "sec": 4, "xref": 5, "inline-formula": 6, "break": 7, "sup": 8, "def-item": 9,
}  # fmt: skip
_DROPPED, _BLOCK, _ITEM = 1, 2, 3
_LINEAR, _MATH = 16, 20
_LINEAR_KINDS = {"mtext": 17, "mspace": 18, "msup": 19, "msubsup": 19, "math": _MATH}
_NOTE, _CITATION = 32, 33
_ROLES = {
    "article": 1, "sub-article": 2, "response": 2, "body": 3, "back": 4, "floats-group": 4,
    "title": 5, "preformat": 6,
}  # fmt: skip
_BODY_END = b"\x07"


@dataclass(frozen=True, slots=True)
class Reading:
    """The tree of an article; where bodies and back matter are empty in it, what was there."""

    root: etree._Element
    bodies: dict[etree._Element, list[str]] = field(default_factory=dict)  # paragraphs of each
    is_scanned: bool = False  # text recognized from scans is in what the tree leaves out


def read_compiled(data: bytes, keep: tuple[str, ...] = ()) -> Reading | None:
    """Read an article, if ``keep`` names no more than citations; None: read it in another way."""
    loops = jats_library()
    if (
        loops is None
        or set(keep) - {"citations"}
        or len(data) > _MOST_BYTES
        or not _is_utf8(data)
        or not is_faultless(data)
    ):
        return None
    article = loops.article_read(data, len(data), _names(loops))
    if not article:
        return None
    try:
        length = c_int64()
        skeleton = loops.article_skeleton(article, byref(length))
        root = parse(ctypes.string_at(skeleton, length.value))
        sections = loops.article_sections(article, byref(length))
        if not sections:
            return None
        dropped = _dropped(ctypes.string_at(sections, length.value))
        kinds = marks.kinds_of_characters()
        found = loops.article_paragraphs(article, dropped, kinds, byref(length))
        if not found:
            return None
        raw = ctypes.string_at(found, length.value)
        is_scanned = bool(loops.article_is_scanned(article))
    except UnreadableError:
        return None
    finally:
        loops.article_free(article)
    if keep:
        raw = raw.replace(marks.OPEN.encode(), b"").replace(marks.CLOSE.encode(), b"")
    texts = [marks.paragraphs_from(body) for body in raw.split(_BODY_END)[:-1]]
    bodies = [body for body in root.iter("body") if _is_whole(body.getparent())]
    return Reading(root, dict(zip(bodies, texts, strict=True)), is_scanned)


def _is_utf8(data: bytes) -> bool:
    return b"\0" not in data[:4] and data[:2] not in {b"\xfe\xff", b"\xff\xfe"} and (
        not _DECLARED.match(data)
    )  # fmt: skip


def _is_whole(element: etree._Element | None) -> bool:
    return element is not None and element.tag in {"article", "sub-article", "response"}


def _dropped(sections: bytes) -> bytes:
    """One byte for each section, 1 if it is left out."""
    said = sections.decode().split(marks.GONE)[:-1]
    return bytes(_says_nothing(text) for text in said) + b"\0"


@functools.lru_cache(maxsize=10_000)
def _says_nothing(section: str) -> bool:
    kind, _, heading = section.partition(marks.CLOSE)
    return jats_text.says_nothing_medical(kind, heading)


@functools.cache
def _names(loops: ctypes.CDLL) -> int:
    """The names that mean something, as the loops want them; made once and kept."""
    rules = jats_text.rules_for()
    assert rules.handlers.keys() == _KINDS.keys(), "jats.c has a function for each of them"
    here = dict.fromkeys(_ROLES, 0) | dict.fromkeys(rules.dropped, _DROPPED)
    here |= dict.fromkeys(jats_text.BLOCKS, _BLOCK) | dict.fromkeys(jats_text.ITEMS, _ITEM) | _KINDS
    linear = (name.rpartition("}")[2] for name in formulas.LINEAR)
    values = dict.fromkeys(jats_text.NOTES, _NOTE)
    values |= {kind: _CITATION for kind in jats_text.CITATIONS if kind is not None}
    rows = [(name, _HERE, kind, _ROLES.get(name, 0)) for name, kind in here.items()]
    rows += [(name, _MATHML, _LINEAR_KINDS.get(name, _LINEAR), 0) for name in linear]
    rows += [(name, _VALUES, kind, 0) for name, kind in values.items()]
    texts = b"".join(name.encode() + b"\0" for name, *_ in rows)
    _kept.append(texts)
    spaces, kinds, roles = (
        bytes(column) for column in zip(*(row[1:] for row in rows), strict=True)
    )
    made = loops.names_new(texts, spaces, kinds, roles, len(rows))
    if not made:
        raise MemoryError
    return int(made)


_kept: list[bytes] = []  # what the loops point into
