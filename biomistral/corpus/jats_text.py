"""Running text of a JATS or NLM element: a walk that keeps inline text in order.

Kept: headings, paragraphs, lists, quotations, boxes, cross-references to figures, tables and
sections ("Figure 1" is part of its sentence). Left out, unless ``keep`` asks for them: tables,
captions, displayed formulas, back matter (also where it stands in the body), and citation marks:
numbers always, authors and years only where they stand in brackets of their own. Footnotes, labels
and references are left out always. Sub- and superscripts are kept as plain text, but a number
raised after a digit gets a caret: 10^6 cells, not 106. An inline formula is kept if it reads
correctly in one line, or if formulas are asked for.

Knows nothing about articles, their facts or files.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lxml import etree

from biomistral.corpus.formulas import formula_text, linear_text
from biomistral.corpus.marks import (
    CLOSE,
    END,
    GONE,
    NEXT_ITEM,
    OPEN,
    RAISED,
    paragraphs_from,
    without_marks,
)


def _words(text: str, separator: str | None = None) -> frozenset[str]:
    return frozenset(word.strip() for word in text.strip().split(separator))


BLOCKS = _words(
    "abstract app body boxed-text def-list disp-quote list list-item p sec speech "
    "statement subtitle title trans-abstract verse-group verse-line"
)
ITEMS = frozenset({"list-item", "verse-line"})
_DROPPED = _words(
    "ack alt-text alternatives attrib caption chem-struct-wrap code contrib-group disp-formula "
    "disp-formula-group fig fig-group fn fn-group glossary graphic index-term inline-graphic "
    "inline-media kwd-group label long-desc math media mml:math notes object-id permissions "
    "preformat ref-list related-article related-object supplementary-material table table-wrap "
    "table-wrap-foot table-wrap-group tex-math"
)
# Sections that say nothing medical; JATS names them by sec-type when they stand in the body.
_DROPPED_SECTIONS = _words(
    "supplementary-material supplementary associated-data data-availability coi-statement "
    "conflict ack author-contributions funding display-objects ref-list"
)
CITATIONS = frozenset({"bibr", "ref", "other", "", None})
NOTES = frozenset({"fn", "table-fn", "corresp", "aff", "author-notes", "contrib"})
# The same where only the heading tells; compared in lower case without number and punctuation.
_DROPPED_HEADINGS = _words(
    """
        abbreviations
        acknowledgement
        acknowledgements
        acknowledgment
        acknowledgments
        additional information
        agradecimentos
        agradecimientos
        author contribution
        author contributions
        author contributions statement
        authors contribution
        authors contributions
        availability of data and material
        availability of data and materials
        competing interest
        competing interests
        conflict of interest
        conflict of interest statement
        conflicts of interest
        consent for publication
        consent to participate
        credit authorship contribution statement
        data availability
        data availability statement
        declaration of competing interest
        declaration of conflicting interests
        declaration of interest
        declaration of interests
        declarations of interest
        disclosure
        disclosure statement
        disclosures
        electronic supplementary material
        ethics approval and consent to participate
        ethics statement
        financial support
        funding
        funding information
        informed consent statement
        institutional review board statement
        pre-publication history
        publishers note
        supplemental material
        supplementary data
        supplementary file
        supplementary files
        supplementary information
        supplementary material
        supplementary materials
        supporting information
    """,
    separator="\n",
)
_NUMBER = re.compile(r"\s*[+−–-]?\s*\d+\s*")
_HEADING_NUMBER = re.compile(r"^[\d.\s]+|[^\w\s-]")

Out = list[list[str]]  # paragraphs, each in parts
Add = Callable[[etree._Element, Out, "Rules"], None]


@dataclass(frozen=True, slots=True)
class Rules:
    """What is left out, and which elements are more than their children's text."""

    dropped: frozenset[str]
    handlers: Mapping[str, Add]
    keeps_citations: bool
    keeps_formulas: bool
    keeps_back_matter: bool


@functools.lru_cache(maxsize=64)
def rules_for(keep: tuple[str, ...] = ()) -> Rules:
    """Rules that keep, besides the running text, what ``keep`` names (``CorpusSettings.keep``)."""
    handlers = dict(_HANDLERS)
    for name, added in _KEPT.items():
        handlers |= added if name in keep else {}
    return Rules(
        dropped=_DROPPED - handlers.keys() - (_BACK_MATTER if "back_matter" in keep else set()),
        handlers=handlers,
        keeps_citations="citations" in keep,
        keeps_formulas="formulas" in keep,
        keeps_back_matter="back_matter" in keep,
    )


def paragraphs_of(element: etree._Element, rules: Rules | None = None) -> list[str]:
    """Paragraphs and headings below ``element``, in order; the items of a list are lines of one."""
    rules = rules or rules_for()
    out: Out = [[]]
    _walk(element, out, rules)
    raw = "".join(f"{''.join(parts)}{END}" for parts in out if parts)
    return paragraphs_from((_as_it_stands(raw) if rules.keeps_citations else raw).encode())


def line_of(element: etree._Element | None) -> str:
    """All text of a title, in one line."""
    return " ".join(" ".join(paragraphs_of(element)).split()) if element is not None else ""


def _as_it_stands(text: str) -> str:
    return text.replace(OPEN, "").replace(CLOSE, "")


def _walk(element: etree._Element, out: Out, rules: Rules) -> None:
    """Append the text of ``element`` to the last paragraph of ``out``; blocks begin a new one.

    The parser stops at a depth of 256, which bounds the recursion.
    """
    tag = str(element.tag)
    if tag in rules.dropped:
        return
    if handler := rules.handlers.get(tag):
        handler(element, out, rules)
    elif tag in BLOCKS:
        out.append([NEXT_ITEM] if tag in ITEMS and _follows_its_like(element) else [])
        _walk_children(element, out, rules)
        out.append([])
    elif tag[0] != "{":  # MathML has its own handler
        _walk_children(element, out, rules)


def _walk_children(element: etree._Element, out: Out, rules: Rules) -> None:
    out[-1].append(element.text or "")
    for child in element:
        _walk(child, out, rules)
        out[-1].append(child.tail or "")


def _follows_its_like(element: etree._Element) -> bool:
    before = element.getprevious()
    return before is not None and before.tag == element.tag


def _inline(element: etree._Element, rules: Rules) -> str:
    out: Out = [[]]
    _walk_children(element, out, rules)
    return " ".join("".join(part for part in parts if part != NEXT_ITEM) for parts in out)


def says_nothing_medical(kind: str, heading: str) -> bool:
    """Whether a section with this sec-type and this text of its title is left out."""
    if kind.lower() in _DROPPED_SECTIONS:
        return True
    return " ".join(_HEADING_NUMBER.sub("", heading.lower()).split()) in _DROPPED_HEADINGS


# --- elements that are more than the text of their children ---------------------------------------


def _add_section(element: etree._Element, out: Out, rules: Rules) -> None:
    kind, heading = element.get("sec-type", ""), element.findtext("title") or ""
    if rules.keeps_back_matter or not says_nothing_medical(kind, heading):
        out.append([])
        _walk_children(element, out, rules)
        out.append([])


def _add_blank(_element: etree._Element, out: Out, _rules: Rules) -> None:
    out[-1].append(" ")


def _add_superscript(element: etree._Element, out: Out, rules: Rules) -> None:
    text = _inline(element, rules)
    out[-1].append(f"{RAISED}{text.strip()}" if _NUMBER.fullmatch(text) else text)


def _add_cross_reference(element: etree._Element, out: Out, rules: Rules) -> None:
    kind = element.get("ref-type")
    if kind in NOTES:
        out[-1].append(GONE)
        return
    text = _inline(element, rules)
    is_citation = kind in CITATIONS
    out[-1].append(f"{OPEN}{text.strip(OPEN + CLOSE)}{CLOSE}" if is_citation else text)


def _add_inline_formula(element: etree._Element, out: Out, rules: Rules) -> None:
    text = linear_text(element)
    if text is None:  # no MathML: plain text, or TeX only
        text = without_marks(_inline(element, rules)) or None
    if not text and rules.keeps_formulas:
        text = formula_text(element)
    out[-1].append(text or GONE)


def _add_formula(element: etree._Element, out: Out, _rules: Rules) -> None:
    out.append([formula_text(element)])
    out.append([])


def _add_definition(element: etree._Element, out: Out, rules: Rules) -> None:
    """A term and what it means, in one line."""
    out.append([NEXT_ITEM] if _follows_its_like(element) else [])
    for number, child in enumerate(element):
        out[-1] += [": " if number else "", _inline(child, rules)]
    out.append([])


def _add_caption(element: etree._Element, out: Out, rules: Rules) -> None:
    """Label, title and text of a figure or table, as one paragraph and those that follow it."""
    found = element.find("label")
    label = " ".join("".join(map(str, found.itertext())).split()) if found is not None else ""
    out.append([label, ". " if label and label[-1] not in ".:" else " "])
    for number, block in enumerate(element.iterfind("caption/*")):
        if number:
            out.append([])
        out[-1].append(_inline(block, rules))
    out.append([])


def _add_table(element: etree._Element, out: Out, rules: Rules) -> None:
    """Caption, then a line for each row, its cells divided by bars."""
    _add_caption(element, out, rules)
    for number, row in enumerate(element.iter("tr")):
        cells = (" ".join(_inline(cell, rules).split()) for cell in row.iterfind("*"))
        out.append([*([NEXT_ITEM] if number else []), " | ".join(cells).rstrip(" |")])
    out.append([])


_HANDLERS: dict[str, Add] = {
    "sec": _add_section,
    "xref": _add_cross_reference,
    "inline-formula": _add_inline_formula,
    "break": _add_blank,
    "sup": _add_superscript,
    "def-item": _add_definition,
}
# What is kept if it is asked for, and how; a later line counts more.
_KEPT: dict[str, dict[str, Add]] = {
    "captions": {
        "fig": _add_caption,
        "table-wrap": _add_caption,
        "fig-group": _walk_children,
        "table-wrap-group": _walk_children,
    },
    "tables": {"table-wrap": _add_table, "table-wrap-group": _walk_children},
    "formulas": {"disp-formula": _add_formula, "disp-formula-group": _walk_children},
}
_BACK_MATTER = frozenset({"ack", "glossary", "notes"})
