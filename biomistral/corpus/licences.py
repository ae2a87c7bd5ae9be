"""Decide the licence of an article from what it says of itself.

All evidence is gathered (links in any attribute, visible links, the name of the licence in prose,
``license-type`` codes) and must agree. A permissive licence beside a NonCommercial, NoDerivatives
or ShareAlike sentence that it does not grant is a contradiction, and so is "all rights reserved" in
the text of the licence. In a copyright statement that grants nothing those words only name the holder,
who reserves what the licence beside it does not grant, as JATS divides the two. Nothing found, something not
understood, or a contradiction: ``None``, which never enters a corpus.

Public domain: a CC0 or Creative Commons public-domain *dedication* is CC0. The Public Domain Mark
and sentences such as "in the public domain in the US" are not a grant that holds everywhere, and
count as unclear. A CC0 waiver beside another licence (it then covers the data) is passed over.

Knows nothing about which licences a recipe wants. Names are those of Creative Commons.
"""

from __future__ import annotations

import re

from lxml import etree

_LICENCES = {
    frozenset(): "CC-BY",
    frozenset({"sa"}): "CC-BY-SA",
    frozenset({"nd"}): "CC-BY-ND",
    frozenset({"nc"}): "CC-BY-NC",
    frozenset({"nc", "sa"}): "CC-BY-NC-SA",
    frozenset({"nc", "nd"}): "CC-BY-NC-ND",
}
_UNKNOWN = "unknown"
# What each licence demands of who uses a text.
_DEMANDS = {"CC0": frozenset[str]()} | {
    name: modifiers | {"by"} for modifiers, name in _LICENCES.items()
}
_ALL = frozenset({"all"})

_NON_COMMERCIAL = r"non[\s-]*commercial(?:ly)?"
_NO_DERIVATIVES = r"no[\s-]*deriv(?:ative|ate)?s?(?:[\s-]*works?)?"
_SHARE_ALIKE = r"share[\s-]*alike"
_MODIFIER = rf"{_NON_COMMERCIAL}|{_NO_DERIVATIVES}|{_SHARE_ALIKE}"

_URL = re.compile(r"creativecommons\.org/+(licen[sc]es|publicdomain)/+([a-z+-]+)", re.IGNORECASE)
_CODE = re.compile(  # CC BY-NC, cc-by, ccbynclicense, creativeCommonsBy-nd; not "Creative Commons by us"
    r"(?:\bcc[\s-]*|creative-?commons-?)by((?:[\s-]*(?:nc|nd|sa))*)(?![a-km-z])", re.IGNORECASE
)
_NAME = re.compile(
    rf"(?:creative\s+commons|\bcc)[\s-]+attribution((?:[\s,/-]*(?:and\s+)?(?:{_MODIFIER}))*)",
    re.IGNORECASE,
)
_ZERO = re.compile(
    r"\bcc[\s-]*(?:0|zero)\b|creative\s+commons\s+(?:cc0\s+)?public\s+domain\s+de(?:claration|dication)",
    re.IGNORECASE,
)
_HARMLESS = re.compile(
    r"\bcommercial(?:ly)?\s*(?:and|or|and/or|as\s+well\s+as)\s*non[\s-]*commercial(?:ly)?"
    r"|non[\s-]*commercial(?:ly)?\s*(?:and|or|and/or|as\s+well\s+as)\s*commercial(?:ly)?",
    re.IGNORECASE,
)
_RESERVED = (
    r"\ball\s+rights\s+(?:are\s+)?reserved\b|\btodos\s+(?:os\s+direitos|los\s+derechos)\s+reservados\b"
    r"|\btous\s+(?:les\s+)?droits\s+réservés\b|\balle\s+rechte\s+vorbehalten\b"
)
# What a statement may forbid or demand in words; each must be part of the licence that is claimed.
_RESTRICTIONS = {
    "nc": re.compile(
        rf"{_NON_COMMERCIAL}"
        r"|\b(?:no|not|without|prohibit\w*|exclud\w*)\b[^.;]{0,40}\bcommercial"
        r"|\bcommercial\s+(?:re-?)?(?:use|distribution|exploitation)\b[^.;]{0,60}"
        r"\b(?:not|prohibited|forbidden|permission|contact)\b"
        r"|(?:não|nao|no|sin\s+fines|sem\s+fins|sans\s+but|pas|nicht)[\s-]*(?:\w+\s+)?"
        r"(?:comercia|commercia|kommerzi)",
        re.IGNORECASE,
    ),
    "nd": re.compile(
        rf"{_NO_DERIVATIVES}\b|\b(?:no|not|without)\b[^.;]{{0,40}}\b(?:modif|adapt|alter|derivative)"
        r"|(?:sem|sin)\s+deriva",
        re.IGNORECASE,
    ),
    "sa": re.compile(rf"{_SHARE_ALIKE}|compartilha\w*\s+igual|compartir\s*igual", re.IGNORECASE),
    "any": re.compile(  # no licence grants what is said not to be granted
        rf"{_RESERVED}|\bno\s+part\s+of\s+th(?:is|e)\s+\w+\s+may\s+be\s+(?:reproduced|copied|used)\b"
        r"|\bnot\s+(?:\w+\s+)?(?:licen[sc]ed|available|released)\s+under\b"
        r"|\b(?:for|to)\s+personal\s+use\s+only|\bonly\s+for\s+personal\s+use"
        r"|\bdata\s+mining\b[^.;]{0,40}\b(?:not|prohibited|forbidden)\b",
        re.IGNORECASE,
    ),
}
_HOLDER = re.compile(_RESERVED, re.IGNORECASE)
_DASHES = re.compile("[\u2010-\u2015\u2212\u00ad_]")


def licence_of_article(article: etree._Element) -> str | None:
    """Licence of a JATS or NLM ``article`` element, or None if it is absent or unclear.

    Only the article's own statements count, not those of its figures and tables. NLM 2.x keeps
    them in ``copyright-statement`` below ``article-meta``.
    """
    return decide(*_evidence(article))


def article_forbids(article: etree._Element, licence: str) -> bool:
    """Whether an article's own statements forbid or demand something that ``licence`` does not.

    Saying nothing forbids nothing; a licence that is not understood forbids everything.
    """
    statement, links = _evidence(article)
    demands = _DEMANDS[licence]
    return any(not _DEMANDS.get(other, _ALL) <= demands for other in _found(statement, links)) or (
        _contradicted(licence, _DASHES.sub("-", statement))
    )


def decide(statement: str, links: list[str]) -> str | None:
    """Licence that a prose ``statement`` and attribute values agree on, or None."""
    found = _found(statement, links)
    if len(found) > 1:
        found.discard("CC0")
    if len(found) != 1:
        return None
    licence = found.pop()
    unclear = licence == _UNKNOWN or _contradicted(licence, _DASHES.sub("-", statement))
    return None if unclear else licence


def canonical(name: str) -> str | None:
    """Canonical form of a licence's name, code or address (``CC BY 4.0``, ``cc-by``), or None."""
    return decide(name, [])


def _evidence(article: etree._Element) -> tuple[str, list[str]]:
    """What an article says of its licence: the prose, and the values of attributes."""
    statements: list[str] = []
    links: list[str] = []
    for meta in article.iterfind("front/article-meta"):
        for element in meta:
            if element.tag not in {"permissions", "license", "copyright-statement"}:
                continue
            statements.append(_prose(element))
            for node in element.iter(etree.Element):
                links += [str(value) for value in node.attrib.values()]
    return " . ".join(statements), links


def _prose(element: etree._Element) -> str:
    """All text of an element; "all rights reserved" goes where it says who holds the copyright."""
    prose = " ".join(map(str, element.itertext()))
    for notice in element.iter("copyright-statement"):
        said = " ".join(map(str, notice.itertext()))
        if not _found(said, []):  # else it is the licence, as NLM 2.x has it
            prose = prose.replace(said, _HOLDER.sub(" ", said))
    return prose


def _found(statement: str, links: list[str]) -> set[str]:
    """Each licence that is named, in prose or by a link."""
    statement = _DASHES.sub("-", statement)
    found = {_of_url(m) for text in (statement, *links) for m in _URL.finditer(text)}
    names = [statement, *(_DASHES.sub("-", link) for link in links if "://" not in link)]
    for text in names:
        found |= {_of_modifiers(match[1]) for match in _CODE.finditer(text)}
        found |= {_of_modifiers(match[1]) for match in _NAME.finditer(text)}
        found |= {"CC0" for _ in _ZERO.finditer(text)}
    return found


def _of_url(match: re.Match[str]) -> str:
    family, code = match[1].lower(), match[2].lower().strip("-+")
    if family == "publicdomain":
        return "CC0" if code == "zero" else _UNKNOWN
    kind, *modifiers = re.split(r"[-+]", code)
    return _LICENCES.get(frozenset(modifiers), _UNKNOWN) if kind == "by" else _UNKNOWN


def _of_modifiers(text: str) -> str:
    text = text.lower()
    found = {
        code
        for code, pattern in (
            ("nc", rf"{_NON_COMMERCIAL}|nc"),
            ("nd", rf"{_NO_DERIVATIVES}|nd"),
            ("sa", rf"{_SHARE_ALIKE}|sa"),
        )
        if re.search(pattern, text)
    }
    return _LICENCES.get(frozenset(found), _UNKNOWN)


def _contradicted(licence: str, statement: str) -> bool:
    """Whether the words forbid or demand something that the licence does not."""
    words = _HARMLESS.sub(" ", statement)
    granted = set(licence.lower().split("-")[2:])
    return any(
        code not in granted and pattern.search(words) for code, pattern in _RESTRICTIONS.items()
    )
