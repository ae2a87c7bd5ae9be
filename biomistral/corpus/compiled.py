"""The compiled inner loops (``texts.c``, ``marks.c``, ``jats.c``): built at first use, called by ctypes.

Where there is no C compiler each of them is None, and whoever asks does the same work with the same
results in Python and NumPy, more slowly. Knows nothing about what is done with them.
"""

from __future__ import annotations

import ctypes
import functools
from ctypes import POINTER, c_char_p, c_int, c_int64, c_uint32, c_uint64, c_void_p
from pathlib import Path

from biomistral.models.compiling import Signature, compiled

SOURCE = Path(__file__).with_name("texts.c")

MARKS_SOURCE = SOURCE.with_name("marks.c")
JATS_SOURCE = SOURCE.with_name("jats.c")

_LENGTH = POINTER(c_int64)
_SIGNATURES: dict[str, Signature] = {
    "pieces_new": (c_void_p, ()),
    "pieces_free": (None, (c_void_p,)),
    "pieces_count": (c_int64, (c_void_p,)),
    "pieces_text": (c_void_p, (c_void_p, c_int64, _LENGTH)),
    "pieces_cut": (c_int64, (c_void_p, c_char_p, c_int64, c_int, c_void_p)),
    "sketch_words": (c_int64, (c_void_p, c_int64, c_void_p, c_uint64, c_void_p)),
    "sketch_least": (None, (c_void_p, c_int64, c_int, c_uint64, c_void_p, c_int)),
    "count_words": (c_int64, (c_char_p, c_int64, _LENGTH)),
    "count_letters": (c_int64, (c_char_p, c_int64, c_char_p)),
}

_MARKS_SIGNATURES: dict[str, Signature] = {
    "marks_is_plain": (c_int, (c_uint32,)),
    "marks_clean": (c_int64, (c_char_p, c_int64, c_char_p, c_void_p, c_void_p)),
}

_JATS_SIGNATURES: dict[str, Signature] = {
    "names_new": (c_void_p, (c_char_p, c_char_p, c_char_p, c_char_p, c_int)),
    "article_read": (c_void_p, (c_char_p, c_int64, c_void_p)),
    "article_free": (None, (c_void_p,)),
    "article_skeleton": (c_void_p, (c_void_p, _LENGTH)),
    "article_sections": (c_void_p, (c_void_p, _LENGTH)),
    "article_paragraphs": (c_void_p, (c_void_p, c_char_p, c_char_p, _LENGTH)),
    "article_is_scanned": (c_int, (c_void_p,)),
}


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the functions of ``texts.c``, or None where they cannot be built."""
    return compiled(SOURCE, _SIGNATURES)


@functools.cache
def marks_library() -> ctypes.CDLL | None:
    """Return the functions of ``marks.c``, or None where they cannot be built."""
    return compiled(MARKS_SOURCE, _MARKS_SIGNATURES)


@functools.cache
def jats_library() -> ctypes.CDLL | None:
    """Return the functions of ``jats.c``, or None where they cannot be built."""
    return compiled(JATS_SOURCE, _JATS_SIGNATURES)
