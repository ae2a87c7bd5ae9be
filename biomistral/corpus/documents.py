"""What a source becomes: one ``Document`` per text, kept or dropped, with a reason if dropped.

Knows nothing about formats, rules or files.
"""

from __future__ import annotations

import ctypes
import functools
import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from biomistral.corpus.compiled import library

Part = Literal["article", "translation", "abstract", "sub-article", "text"]
LicenceSource = Literal["", "metadata", "file_list", "xml", "field"]

# Zero-width marks, byte-order mark and soft hyphen: invisible, and they split words into odd tokens.
_INVISIBLE = re.compile("[\u00ad\u200b\u200c\u200d\u2060\ufeff]")
_JOINERS_MATTER = re.compile("[\u0600-\u06ff\u0900-\u0dff]")  # Arabic and Indic scripts
_IDEOGRAPH = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")


@dataclass(frozen=True, slots=True)
class Document:
    """One text and what is known of it. ``problem`` is set if it could not be read at all."""

    id: str
    file: str  # path below the fixed part of the pattern that found it, never absolute
    text: str  # NFC; paragraphs and headings separated by one empty line
    part: Part = "article"
    language: str | None = None  # decided: declared, detected, or None where neither is sure
    declared_language: str | None = None  # ISO 639-1 where it has such a code
    licence: str | None = None  # of recipe.settings.Licence; None: none, unclear or unknown
    licence_source: LicenceSource = ""  # who decided it; an article's text may only veto the others
    licence_vetoed: bool = False  # the article's own text forbids what its metadata permit
    needs_licence: bool = True  # False for the user's own plain texts
    title: str = ""
    authors: str = ""  # of the article, with commas between them
    article_type: str = ""
    doi: str = ""
    pmcid: str = ""
    version: int | None = None  # of the object of PubMed Central: PMC123.2 has 2
    pmid: str = ""
    journal: str = ""
    year: int | None = None
    has_body: bool = True
    is_retracted: bool = False  # as its metadata say
    is_ocr: bool = False  # text recognized from scanned pages
    source_md5: str = ""  # of the XML; the ETag of its object in PubMed Central
    problem: str = ""  # reason code
    detail: str = ""  # what the parser said

    @property
    def family(self) -> str:
        """Id of the article it is part of: translations and abstracts follow their article."""
        return self.id.split("#")[0]


@dataclass(frozen=True, slots=True)
class Dropped:
    """A document that does not enter, and why; its text is kept for samples and counts."""

    document: Document
    reason: str  # a code of ``filters``
    detail: str = ""


def one_line(text: str) -> str:
    """NFC, no invisible marks, every run of white space one blank, none at the ends."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
        if _INVISIBLE.search(text) and not _JOINERS_MATTER.search(text):
            text = _INVISIBLE.sub("", text)
    return " ".join(text.split())


@functools.lru_cache(maxsize=128)  # asked for by the filters and again by who keeps the document
def count_words(text: str) -> int:
    """Words between white space; of scripts without it (Chinese, Japanese), two characters a word."""
    loops = library()
    if loops:
        data, num_found = text.encode("utf-8", "replace"), ctypes.c_int64()
        num_words = loops.count_words(data, len(data), ctypes.byref(num_found))
        return int(num_words) + num_found.value // 2
    num_ideographs = len(_IDEOGRAPH.findall(text))
    rest = _IDEOGRAPH.sub(" ", text) if num_ideographs else text
    return len(rest.split()) + num_ideographs // 2


_LONG_CODES = {
    "eng": "en", "fre": "fr", "fra": "fr", "spa": "es", "por": "pt", "ger": "de", "deu": "de",
    "rus": "ru", "chi": "zh", "zho": "zh", "ara": "ar", "ita": "it", "jpn": "ja",
}  # fmt: skip


def language_code(declared: str | None) -> str | None:
    """A declared language without region, of two letters if it can be (``EN-us``, ``eng``: ``en``)."""
    code = (declared or "").strip().lower().replace("_", "-").split("-")[0]
    return _LONG_CODES.get(code, code) or None
