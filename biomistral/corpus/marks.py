"""Take citation marks out of a paragraph so that its sentences stay whole.

While an article is walked, marks are put around what is a citation and where something was left
out: control characters, which XML text cannot contain. Here they are resolved: bare numbers go, with
the brackets, separators and lead-in words around them ("(reviewed in [4, 5])", "as described by
[6]."); names stay where a sentence needs them ("as Silva showed").

Knows nothing about XML. Every expression begins with a literal or a set, or is tried only where a
plain search finds what it needs: tried at every letter they would take longer than all the rest,
and long runs of blanks or commas must not take quadratic time.
"""

from __future__ import annotations

import ctypes
import functools
import re
from collections.abc import Iterable

import numpy as np

from biomistral.corpus.compiled import marks_library
from biomistral.corpus.documents import one_line

OPEN, CLOSE = "\x00", "\x01"  # around a citation
GONE = "\x02"  # here something was left out
RAISED = "\x03"  # before a number that was a superscript
NEXT_ITEM = "\x04"  # what follows is the next line of a list, not a new paragraph
END = "\x05"  # of a paragraph, where many are in one text
_RAW = "\x06"  # before a paragraph that the compiled loops leave to Python

_CITATION = f"{OPEN}[^{OPEN}{CLOSE}]*{CLOSE}"
_LEADS = (
    r"and\b|or\b|&|e\.g\.|i\.e\.|cf\.|see\b|also\b|reviewed\b|reviews?\b|discussed\b|summari[sz]ed\b|"
    r"described\b|in\b|by\b|for\b|an?\b|examples?\b|refs?\b|references?\b|therein\b|recently\b"
)
_BETWEEN = rf"(?:[\s,;\d–—‐-]|{_LEADS})*"
_BRACKETED = re.compile(rf"[(\[]{_BETWEEN}{_CITATION}(?:{_BETWEEN}{_CITATION})*{_BETWEEN}[)\]]")
_RUN = re.compile(rf"{_CITATION}(?:[\s,;–—‐-]*{_CITATION})*")
_EMPTIED = re.compile(
    rf"[(\[](?:[\s,;–—‐-]|{_LEADS})*{GONE}(?:[\s,;{GONE}–—‐-]|{_LEADS})*[)\]]", re.IGNORECASE
)
_AFTER_OPEN = re.compile(rf"([(\[])\s*{GONE}[\s,;{GONE}]*")
_BEFORE_CLOSE = re.compile(rf"{GONE}\s*(?=[)\]])")  # the separators before it go as ``_INSIDE``
_SEPARATED = re.compile(rf"{GONE}(?:[\s,;–—‐-]*{GONE})+")
_RAISED_NUMBER = re.compile(rf"(\d)\s*{RAISED}(?=[+−–-]?\d)")
_INSIDE = re.compile(r"(?<=[(\[]) +|(?<![ ,;])[ ,;]+(?=[)\]])| +(?=[,.](?: |$))")
_DANGLING = re.compile(r"(\b\w+(?:ed|en|wn)) (?:by|in|from|elsewhere in)$")
_DANGLING_CHARACTERS = 60  # enough to hold it, so that long texts are not searched through
_WORD = re.compile(r"[^\W\d_]{2}")


def paragraphs_from(raw: bytes) -> list[str]:
    """Clean paragraphs, each with ``END`` behind it; the items of a list become lines of one.

    What is empty goes. Marks in ``raw`` (UTF-8) are as a walk over an article leaves them.
    """
    paragraphs: list[str] = []
    is_next_line = False
    for part in _cleaned(raw):
        is_next_line = is_next_line or part[:1] == NEXT_ITEM
        text = part[1:] if part[:1] == NEXT_ITEM else part
        if text and is_next_line and paragraphs:
            paragraphs[-1] += f"\n{text}"
        elif text:
            paragraphs.append(text)
        is_next_line = is_next_line and not text
    return paragraphs


def _cleaned(raw: bytes) -> Iterable[str]:
    """Paragraphs without marks, but a ``NEXT_ITEM`` at their start."""
    loops = marks_library()
    parts = (_with_compiled(loops, raw) if loops else raw).decode().split(END)
    for part in parts[:-1]:
        item = NEXT_ITEM if NEXT_ITEM in part else ""
        if loops and _RAW not in part:
            yield part
        else:
            yield item + clean(part.replace(NEXT_ITEM, "").replace(_RAW, ""))


def _with_compiled(loops: ctypes.CDLL, data: bytes) -> bytes:
    """The same paragraphs, cleaned; those that are not plain behind a ``_RAW``."""
    out, other = (np.empty(2 * len(data) + 2, np.uint8) for _ in range(2))
    length = loops.marks_clean(
        data, len(data), kinds_of_characters(), out.ctypes.data, other.ctypes.data
    )
    return out[:length].tobytes()


@functools.cache
def kinds_of_characters() -> bytes:
    """Of the first 65,536 characters: 1 of a word, 2 decimal digit, 4 letter, 8 capital (added up)."""
    kinds = bytearray(0x10000)
    for code in range(0x10000):
        character = chr(code)
        if character.isalnum() or character == "_":
            is_letter = character != "_" and not character.isdecimal()
            kinds[code] = 1 + 2 * character.isdecimal() + 4 * is_letter + 8 * character.isupper()
    return bytes(kinds)


def clean(text: str) -> str:
    """One line of text without marks; white space tidied."""
    text = one_line(text)
    has_marks = OPEN in text or GONE in text
    if has_marks:
        text = _BRACKETED.sub(GONE, text)
        text = _RUN.sub(_kept_citation, text)
        text = _SEPARATED.sub(GONE, text)
        text = _EMPTIED.sub(GONE, text)
        text = _SEPARATED.sub(GONE, text)
        text = _AFTER_OPEN.sub(r"\1", text)
        text = _BEFORE_CLOSE.sub("", text)
        text = _closed_up(text)
        text = text.replace(OPEN, "").replace(CLOSE, "")  # of a citation in a citation
    if RAISED in text:
        text = _RAISED_NUMBER.sub(r"\1^", text).replace(RAISED, "")
        has_marks = True
    if has_marks:
        text = " ".join(text.split())
    if not _may_have_inside(text):
        return text
    return " ".join(_INSIDE.sub("", text).split())


def without_marks(text: str) -> str:
    """Text as it stands, marks only taken away."""
    for mark in (OPEN, CLOSE, GONE, RAISED):
        text = text.replace(mark, "")
    return text


def _kept_citation(match: re.Match[str]) -> str:
    """Names stay, because a sentence needs them; bare numbers go."""
    text = match[0].replace(OPEN, "").replace(CLOSE, "")
    return text if _WORD.search(text) else GONE


def _closed_up(text: str) -> str:
    """Text without the marks of what is gone, nor what led up to them at the end of a clause."""
    first, *rest = text.split(GONE)
    done = [first]
    for piece in rest:
        if not piece or piece[0] in " .,;:)]":
            done[-1] = done[-1].rstrip(" ,")
        if not piece or piece[0] in ".,;)]":
            done[-1] = _without_dangling_word(done[-1])
        done.append(_joined_on(piece, done[-1]))
    return "".join(done)


def _without_dangling_word(before: str) -> str:
    """``as described by`` is ``as described`` once the number is gone."""
    head, tail = before[:-_DANGLING_CHARACTERS], before[-_DANGLING_CHARACTERS:]
    return head + _DANGLING.sub(r"\1", tail)


def _joined_on(piece: str, before: str) -> str:
    """``et al. [4].`` has one full stop left, and ``wheat [4].The`` a blank after it."""
    if piece.startswith(".") and before.endswith("."):
        return piece[1:]
    if piece[:1] == "." and piece[1:2].isupper():
        return f". {piece[1:]}"
    return piece


def _may_have_inside(text: str) -> bool:
    """Whether ``_INSIDE`` may match."""
    # fmt: off
    return (
        " ," in text or " ." in text or " )" in text or "( " in text or ",)" in text
        or ";)" in text or " ]" in text or "[ " in text or ",]" in text or ";]" in text
    )
    # fmt: on
