"""Running text of a JATS or NLM element: a walk that keeps inline text in order.

Kept: headings, paragraphs, lists, quotations, boxes, cross-references to figures, tables and
sections ("Figure 1" is part of its sentence). Left out: references, tables and figures with their
captions, displayed formulas, footnotes, back matter (also where it stands in the body), and
citation marks: numbers always, authors and years only where they stand in brackets of their own.
Sub- and superscripts are kept as plain text, but a number raised after a digit gets a caret:
10^6 cells, not 106. An inline formula is kept if it reads correctly in one line.

Knows nothing about articles, their facts or files.
"""

from __future__ import annotations

import re

from lxml import etree

from biomistral.corpus.documents import one_line

_MATHML = "{http://www.w3.org/1998/Math/MathML}"


def _words(text: str, separator: str | None = None) -> frozenset[str]:
    return frozenset(word.strip() for word in text.strip().split(separator))


_BLOCKS = _words(
    "abstract app body boxed-text def-item def-list disp-quote list list-item p sec speech "
    "statement subtitle title trans-abstract verse-group verse-line"
)
_ITEMS = frozenset({"list-item", "def-item", "verse-line"})
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
_CITATIONS = frozenset({"bibr", "ref", "other", "", None})
_NOTES = frozenset({"fn", "table-fn", "corresp", "aff", "author-notes", "contrib"})
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
        competing interest
        competing interests
        conflict of interest
        conflict of interest statement
        conflicts of interest
        consent for publication
        data availability
        data availability statement
        declaration of interests
        declarations of interest
        disclosure
        disclosure statement
        disclosures
        electronic supplementary material
        financial support
        funding
        funding information
        pre-publication history
        supplemental material
        supplementary data
        supplementary information
        supplementary material
        supplementary materials
        supporting information
    """,
    separator="\n",
)
# Formulas that read correctly when written in one line.
_LINEAR_MATH = frozenset(
    f"{_MATHML}{name}"
    for name in _words("math mrow mi mn mo mtext mspace mstyle mpadded msub msup msubsup mover")
)

# Marks put around text while walking; control characters, so XML text cannot contain them.
# The look-behinds below begin each match at the start of a run: without them, long runs of blanks
# or commas would take quadratic time.
_OPEN, _CLOSE, _GONE, _RAISED, _NEXT_ITEM = "\x00", "\x01", "\x02", "\x03", "\x04"
_CITATION = f"{_OPEN}[^{_OPEN}{_CLOSE}]*{_CLOSE}"
_BETWEEN = r"(?:[\s,;\d–—‐-]|and\b|&|e\.g\.|cf\.|see\b|see\s+also\b)*"
_BRACKETED = re.compile(rf"[(\[]{_BETWEEN}{_CITATION}(?:{_BETWEEN}{_CITATION})*{_BETWEEN}[)\]]")
_RUN = re.compile(rf"{_CITATION}(?:[\s,;–—‐-]*{_CITATION})*")
_EMPTIED = re.compile(rf"[(\[][\s,;{_GONE}–—‐-]*{_GONE}[\s,;{_GONE}–—‐-]*[)\]]")
_AFTER_OPEN = re.compile(rf"([(\[])\s*{_GONE}[\s,;{_GONE}]*")
_BEFORE_CLOSE = re.compile(rf"{_GONE}\s*(?=[)\]])")  # the separators before it go as ``_INSIDE``
_SEPARATED = re.compile(rf"{_GONE}(?:[\s,;–—‐-]*{_GONE})+")
_RAISED_NUMBER = re.compile(rf"(\d)\s*{_RAISED}(?=[+−–-]?\d)")
_NUMBER = re.compile(rf"(?<=\d)\s*{_RAISED}(?=[+−–-]?\d)")
_NUMBER = re.compile(r"\s*[+−–-]?\s*\d+\s*")
_INSIDE = re.compile(r"(?<=[(\[]) +|(?<![ ,;])[ ,;]+(?=[)\]])| +(?=[,.](?: |$))")
_HEADING_NUMBER = re.compile(r"^[\d.\s]+|[^\w\s-]")


def paragraphs_of(element: etree._Element) -> list[str]:
    """Paragraphs and headings below ``element``, in order; the items of a list are lines of one."""
    out: list[list[str]] = [[]]
    _walk(element, out)
    paragraphs: list[str] = []
    is_next_line = False
    for parts in out:
        is_next_line = is_next_line or _NEXT_ITEM in parts
        text = _clean("".join(part for part in parts if part != _NEXT_ITEM))
        if text and is_next_line and paragraphs:
            paragraphs[-1] += f"\n{text}"
        elif text:
            paragraphs.append(text)
        is_next_line = is_next_line and not text
    return paragraphs


def line_of(element: etree._Element | None) -> str:
    """All text of a title, in one line."""
    return " ".join(" ".join(paragraphs_of(element)).split()) if element is not None else ""


def _walk(element: etree._Element, out: list[list[str]]) -> None:
    """Append the text of ``element`` to the last paragraph of ``out``; blocks begin a new one.

    The parser stops at a depth of 256, which bounds the recursion.
    """
    tag = str(element.tag)
    if tag in _DROPPED or (tag == "sec" and _says_nothing_medical(element)):
        return
    if tag == "xref":
        out[-1].append(_cross_reference(element))
    elif tag == "inline-formula":
        out[-1].append(_formula(element))
    elif tag == "break":
        out[-1].append(" ")
    elif tag in _BLOCKS:
        out.append([_NEXT_ITEM] if tag in _ITEMS and _follows_its_like(element) else [])
        _walk_children(element, out)
        out.append([])
    elif tag == "sup":
        text = _inline(element)
        out[-1].append(f"{_RAISED}{text.strip()}" if _NUMBER.fullmatch(text) else text)
    elif not tag.startswith(_MATHML):
        _walk_children(element, out)


def _walk_children(element: etree._Element, out: list[list[str]]) -> None:
    out[-1].append(element.text or "")
    for child in element:
        _walk(child, out)
        out[-1].append(child.tail or "")


def _follows_its_like(element: etree._Element) -> bool:
    before = element.getprevious()
    return before is not None and before.tag == element.tag


def _inline(element: etree._Element) -> str:
    out: list[list[str]] = [[]]
    _walk_children(element, out)
    return "".join(part for parts in out for part in parts)


def _says_nothing_medical(section: etree._Element) -> bool:
    if section.get("sec-type", "").lower() in _DROPPED_SECTIONS:
        return True
    heading = section.findtext("title") or ""
    return " ".join(_HEADING_NUMBER.sub("", heading.lower()).split()) in _DROPPED_HEADINGS


def _cross_reference(element: etree._Element) -> str:
    kind = element.get("ref-type")
    if kind in _NOTES:
        return _GONE
    text = _inline(element)
    marks = _OPEN + _CLOSE
    return f"{_OPEN}{text.strip(marks)}{_CLOSE}" if kind in _CITATIONS else text


def _formula(element: etree._Element) -> str:
    """Text of an inline formula that reads correctly in one line, else nothing."""
    math = element.find(f".//{_MATHML}math")
    if math is None:
        return _inline(element) or _GONE
    if any(node.tag not in _LINEAR_MATH for node in math.iter(etree.Element)):
        return _GONE
    return _linear(math)


def _linear(node: etree._Element) -> str:
    parts = [(node.text or "").strip(), *(_linear(child) for child in node)]
    if node.tag in {f"{_MATHML}msup", f"{_MATHML}msubsup"}:
        parts.insert(-1, _RAISED)
    return "".join(parts)


def _clean(text: str) -> str:
    """Take citation marks out with the brackets and separators around them; tidy white space."""
    text = one_line(text)
    if _OPEN in text or _GONE in text:
        text = _BRACKETED.sub(_GONE, text)
        text = _RUN.sub(_kept_citation, text)
        text = _SEPARATED.sub(_GONE, text)
        text = _EMPTIED.sub(_GONE, text)
        text = _AFTER_OPEN.sub(r"\1", text)
        text = _BEFORE_CLOSE.sub("", text)
        text = _closed_up(text)
    if _RAISED in text:
        text = _RAISED_NUMBER.sub(r"\1^", text).replace(_RAISED, "")
    if _may_have_inside(text):
        text = _INSIDE.sub("", " ".join(text.split()))
    return " ".join(text.split())


def _may_have_inside(text: str) -> bool:
    """Whether ``_INSIDE`` may match: trying it at every letter takes longer than all the rest."""
    # fmt: off
    return (
        " ," in text or " ." in text or " )" in text or "( " in text or ",)" in text
        or ";)" in text or " ]" in text or "[ " in text or ",]" in text or ";]" in text
    )
    # fmt: on


def _closed_up(text: str) -> str:
    """Text without the marks of what is gone, nor the blanks and commas that led up to it."""
    first, *rest = text.split(_GONE)
    done = first
    for piece in rest:
        if not piece or piece[0] in " .,;:)]":
            done = done.rstrip(" ,")
        done += piece
    return done


def _kept_citation(match: re.Match[str]) -> str:
    """Names stay, because a sentence needs them ("as Silva showed"); bare numbers go."""
    text = match[0].replace(_OPEN, "").replace(_CLOSE, "")
    return text if re.search(r"[^\W\d_]{2}", text) else _GONE
