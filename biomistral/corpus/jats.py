"""Text and facts of one JATS or NLM article (jats.nlm.nih.gov, archiving and publishing sets).

One file gives one document for the article, one for each abstract in another language, and one
for each ``sub-article``: a translation is a text of its own, and what else there is (reviews,
replies) is marked, so that it can be dropped with a reason.

The text is the title, the abstracts and the body, see ``jats_text``; one empty line between
paragraphs, headings being paragraphs.

The bodies, which are most of a file, are read by compiled loops where they can (``jats_compiled``),
to the same text. Knows nothing about files, licences wanted or languages wanted.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any

from lxml import etree

from biomistral.corpus.documents import Document, Part, language_code
from biomistral.corpus.files import UnreadableError
from biomistral.corpus.jats_compiled import Reading, read_compiled
from biomistral.corpus.jats_text import Rules, line_of, paragraphs_of, rules_for
from biomistral.corpus.licences import article_forbids, licence_of_article
from biomistral.corpus.metadata import Metadata
from biomistral.corpus.parsing import parse

_XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
# Abstracts that only repeat the article in a line.
_DROPPED_ABSTRACTS = frozenset({"graphical", "precis", "teaser", "toc"})

_MOST_AUTHORS = 30  # named; some articles have thousands


def read_article(
    data: bytes, key: str, metadata: Metadata | None = None, keep: tuple[str, ...] = ()
) -> list[Document]:
    """Return the documents of one XML file; ``key`` names it where it has neither PMCID nor DOI.

    ``metadata`` decide the licence where they are given; the XML may veto it. ``keep`` names what
    is kept beside the running text (``CorpusSettings.keep``).
    Raises ``UnreadableError`` with reason ``empty``, ``not_well_formed``, ``not_an_article``,
    ``too_deep`` or ``metadata_disagree``.
    """
    reading = read_compiled(data, keep) or Reading(parse(data))
    root = reading.root
    meta = root.find("front/article-meta")
    common: dict[str, Any] = {
        "file": key,
        "doi": _article_id(meta, "doi").lower(),
        "pmcid": _pmcid(meta),
        "pmid": _article_id(meta, "pmid"),
        "authors": _authors(meta),
        "journal": line_of(root.find("front/journal-meta//journal-title")),
        "year": _year(meta),
        "source_md5": hashlib.md5(data, usedforsecurity=False).hexdigest(),
        "licence": None if metadata else licence_of_article(root),
        "licence_source": "xml",
        "is_ocr": reading.is_scanned
        or root.find(".//preformat[@preformat-type='pmc-ocr-text']") is not None,
    }
    if metadata:
        _merge(common, metadata, root)
    try:
        return list(_documents(reading, common["pmcid"] or common["doi"] or key, common, keep))
    except RecursionError:  # the parser allows a depth of 256, the walk nearly as much
        raise UnreadableError("too_deep", "elements are nested too deeply") from None


def _merge(facts: dict[str, Any], metadata: Metadata, root: etree._Element) -> None:
    """Let the metadata decide, and fill in what the XML does not say."""
    if metadata.pmcid and facts["pmcid"] not in {"", metadata.pmcid}:
        raise UnreadableError(
            "metadata_disagree", f"metadata of {metadata.pmcid} beside the text of {facts['pmcid']}"
        )
    for name in ("pmcid", "pmid", "doi"):
        facts[name] = facts[name] or getattr(metadata, name)
    facts["version"] = metadata.version
    facts["licence"], facts["licence_source"] = metadata.licence, metadata.source
    facts["is_retracted"] = metadata.is_retracted
    facts["is_ocr"] |= metadata.is_ocr
    if metadata.licence and article_forbids(root, metadata.licence):
        facts["licence_vetoed"] = True


def _documents(
    reading: Reading, id_: str, common: dict[str, Any], keep: tuple[str, ...]
) -> Iterator[Document]:
    """The article, then its abstracts in other languages, then its sub-articles, in file order."""
    root = reading.root
    meta = root.find("front/article-meta")
    yield from _article(reading, root, meta, "article", id_, common, keep)
    for number, element in enumerate(root.iter("sub-article", "response"), start=1):
        # A translated review, inside a translation, is a review.
        nested = element.getparent() is not root
        translation = element.get("article-type") == "translation" and not nested
        part: Part = "translation" if translation else "sub-article"
        front = element.find("front-stub")
        meta = front if front is not None else element.find("front/article-meta")
        yield from _article(reading, element, meta, part, f"{id_}#{number}", common, keep)


def _article(
    reading: Reading,
    element: etree._Element,
    meta: etree._Element | None,
    part: Part,
    id_: str,
    common: dict[str, Any],
    keep: tuple[str, ...],
) -> Iterator[Document]:
    language = language_code(element.get(_XML_LANG))
    # A translated correction is a correction: a translation is of the type of its article.
    typed = next(element.iterancestors("article"), element) if part == "translation" else element
    article_type = typed.get("article-type", "")
    title = line_of(meta.find("title-group/article-title")) if meta is not None else ""
    rules = rules_for(keep)
    own, foreign = _abstracts(meta, language, rules)
    body = element.find("body")
    body_text: list[str] = []
    if body is not None:
        body_text = reading.bodies[body] if body in reading.bodies else paragraphs_of(body, rules)
    yield Document(
        id=id_,
        text="\n\n".join([*filter(None, (title, *own)), *body_text, *_back(element, keep)]),
        part=part,
        declared_language=language,
        title=title,
        article_type=article_type,
        has_body=bool(body_text),
        **common,
    )
    for number, (abstract_language, paragraphs) in enumerate(foreign, start=1):
        yield Document(
            id=f"{id_}#abstract{number}",
            text="\n\n".join(paragraphs),
            part="abstract" if part != "sub-article" else part,
            declared_language=abstract_language,
            title=title,
            article_type=article_type,
            **common,
        )


def _abstracts(
    meta: etree._Element | None, language: str | None, rules: Rules
) -> tuple[list[str], list[tuple[str | None, list[str]]]]:
    """Paragraphs of the abstracts in the article's language; and each other one with its own."""
    own: list[str] = []
    foreign: list[tuple[str | None, list[str]]] = []
    for element in meta if meta is not None else ():
        if element.tag not in {"abstract", "trans-abstract"}:
            continue
        if element.get("abstract-type") in _DROPPED_ABSTRACTS:
            continue
        declared = language_code(element.get(_XML_LANG))
        paragraphs = paragraphs_of(element, rules)
        if element.tag == "trans-abstract" or (declared and language and declared != language):
            foreign.append((declared, paragraphs))
        else:
            own += paragraphs
    return own, foreign


def _back(element: etree._Element, keep: tuple[str, ...]) -> list[str]:
    """What stands after the body, as far as it is asked for; references as lines of one."""
    text: list[str] = []
    back = element.find("back")
    if back is None:
        return text
    if "back_matter" in keep:
        text += paragraphs_of(back, rules_for(keep))
    if "references" in keep:
        entries = (" ".join(_entry(ref).split()) for ref in back.iter("ref"))
        text.append("\n".join(filter(None, entries)))
    return [paragraph for paragraph in text if paragraph]


def _entry(reference: etree._Element) -> str:
    """One reference; its parts divided by blanks, where the file gives parts only."""
    written = reference.find("mixed-citation")
    joint = "" if written is not None else " "
    return joint.join(map(str, (reference if written is None else written).itertext()))


# --- facts ----------------------------------------------------------------------------------------


def _article_id(meta: etree._Element | None, *kinds: str) -> str:
    for element in meta.iterfind("article-id") if meta is not None else ():
        if element.get("pub-id-type") in kinds and (element.text or "").strip():
            return (element.text or "").strip()
    return ""


def _pmcid(meta: etree._Element | None) -> str:
    match = re.fullmatch(r"(?:PMC)?(\d+)(?:\.\d+)?", _article_id(meta, "pmc", "pmcid", "pmcaid"))
    return f"PMC{match[1]}" if match else ""


def _authors(meta: etree._Element | None) -> str:
    """Names of people and groups in order, with commas between them; of very many the first."""
    found = meta.iterfind("contrib-group/contrib") if meta is not None else ()
    names = [_name(one) for one in found if one.get("contrib-type", "author") == "author"]
    names = [name for name in names if name]
    others = len(names) - _MOST_AUTHORS
    return ", ".join(names[:_MOST_AUTHORS]) + (f" and {others} others" if others > 0 else "")


def _name(contributor: etree._Element) -> str:
    """Name of a person, or of a group that is the author (its members may be listed within)."""
    group = contributor.find("collab")
    if group is not None:
        return " ".join((group.text or "").split()) or line_of(group.find("institution"))
    name = contributor.find("name")
    if name is None:
        name = contributor.find("name-alternatives/name")
    if name is None:
        return line_of(contributor.find("string-name"))
    parts = (name.findtext(part) or "" for part in ("given-names", "surname", "suffix"))
    return " ".join(" ".join(parts).split())


def _year(meta: etree._Element | None) -> int | None:
    """Earliest year of publication, in print or online."""
    years = [
        int(text)
        for element in (meta.iterfind("pub-date/year") if meta is not None else ())
        if re.fullmatch(r"[12]\d{3}", text := (element.text or "").strip())
    ]
    return min(years, default=None)
