"""Keep a document, or drop it with a reason that can be counted.

    empty, not_well_formed, not_an_article, too_deep, not_utf8, not_readable, too_large, no_text
                          the source could not be read (see ``jats`` and ``sources``)
    sub_article           a review, reply or other text attached to an article
    article_type          a correction, retraction or other notice; or not of the types asked for
    metadata, file_list, metadata_disagree, not_in_file_list, not_in_package
                          what should decide its licence cannot be read, or is of something else
    older_version         a newer version of the article was read
    retracted             its metadata or its title say the article was withdrawn
    ocr                   the text was recognized from scanned pages
    no_body               nothing but a title and perhaps an abstract
    licence_unclear       no licence, several that disagree, or one that is not understood
    licence_not_allowed   a licence the settings do not list
    licence_vetoed        its metadata give a licence, and its own text forbids what that permits
    markup                HTML was pasted into the file as text
    too_short             fewer words than the settings ask for
    language              another language than the settings list, or one that is not recognised
    repeated_lines, few_letters, word_length, symbols
                          no prose (see ``quality``)
    benchmark_overlap     it has some words in a row in common with a test question

The first reason that holds, in this order, is the one given. Knows nothing about files.
"""

from __future__ import annotations

import dataclasses
import re

from biomistral.corpus.documents import Document, count_words
from biomistral.corpus.language import detect
from biomistral.corpus.quality import fault
from biomistral.ngrams import Hashes, Runs, are_in
from biomistral.recipe.settings import CorpusSettings

_NOTICES = {
    "announcement", "books-received", "calendar", "correction", "correction-forward",
    "corrigendum", "erratum", "expression-of-concern", "index", "partial-retraction", "retraction",
    "retraction-forward", "retracted-article", "withdrawal",
}  # fmt: skip
_RETRACTED = re.compile(
    r"^\W*(?:retracted|withdrawn|retraction|withdrawal)(?:\s+article)?\W*:|^\W*retracted\s+article\b",
    re.IGNORECASE,
)
# Closing tags of HTML in running text; an article about web pages may show a few.
_HTML = re.compile(r"</(?:p|div|td|tr|table|font|span|strong|small|b|i|sup|sub|a)>", re.IGNORECASE)
_LEAST_MARKUP = 10
_LEAST_TO_DETECT = 500  # characters; from here on, detection errs less often than declarations


def with_language(document: Document) -> Document:
    """Return the document with its language: of a long text what it is, of a short one as declared.

    Half of the articles declare nothing, and some declare the language of their journal.
    """
    if not document.text:
        return document
    declared = document.declared_language
    if not declared or len(document.text) >= _LEAST_TO_DETECT:
        declared = detect(document.text) or declared
    return dataclasses.replace(document, language=declared)


def reason_to_drop(document: Document, settings: CorpusSettings) -> str:
    """Reason to drop ``document``, whose language is known, or ``""`` to keep it."""
    return (
        document.problem
        or _reason_of_kind(document, settings)
        or _reason_of_licence(document, settings)
        or ("markup" if len(_HTML.findall(document.text)) >= _LEAST_MARKUP else "")
        or ("too_short" if count_words(document.text) < settings.minimum_words else "")
        or ("language" if document.language not in settings.languages else "")
        or (settings.quality and fault(document.text, document.language))
        or ""
    )


def _reason_of_kind(document: Document, settings: CorpusSettings) -> str:
    if document.part == "sub-article":
        return "sub_article"
    wanted = settings.article_types
    if document.part != "text" and (
        document.article_type not in wanted if wanted else document.article_type in _NOTICES
    ):
        return "article_type"
    if document.is_retracted or _RETRACTED.search(document.title):
        return "retracted"
    if document.is_ocr:
        return "ocr"
    return "" if document.has_body else "no_body"


def _reason_of_licence(document: Document, settings: CorpusSettings) -> str:
    if document.licence_vetoed:
        return "licence_vetoed"
    if not document.needs_licence or document.licence in settings.licences:
        return ""
    return "licence_not_allowed" if document.licence else "licence_unclear"


class Overlap:
    """Runs of words that no document may contain."""

    def __init__(self, known: Hashes, width: int) -> None:
        self._known = known  # sorted
        self._runs = Runs(width)

    def reason_to_drop(self, document: Document) -> str:
        """``benchmark_overlap`` or ``""``."""
        found = are_in(self._runs.of(document.text), self._known)
        return "benchmark_overlap" if found.any() else ""
