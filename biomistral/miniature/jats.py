"""Write an invented article as JATS XML, the format of PubMed Central, flawless or flawed.

The flaws are those a corpus builder meets: a licence that forbids use, none at all, a second copy,
a file that is cut short. Knows nothing about what articles say. Format: https://jats.nlm.nih.gov.
"""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

from biomistral.miniature.texts import Article

LICENCES = {
    "CC-BY": "https://creativecommons.org/licenses/by/4.0/",
    "CC0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "CC-BY-SA": "https://creativecommons.org/licenses/by-sa/4.0/",
    "CC-BY-NC": "https://creativecommons.org/licenses/by-nc/4.0/",
}


def render(article: Article, licence: str | None, *, declare_language: bool = True) -> str:
    """Return the article as an XML document; ``licence`` None leaves the licence out."""
    language = f" xml:lang={quoteattr(article.language)}" if declare_language else ""
    body = "".join(
        f"<sec><title>{escape(heading)}</title>{''.join(_paragraph(p) for p in paragraphs)}</sec>"
        for heading, paragraphs in article.sections
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<article article-type="research-article"{language} '
        'xmlns:xlink="http://www.w3.org/1999/xlink">\n'
        "<front><journal-meta><journal-title-group><journal-title>Annals of the Invented World"
        "</journal-title></journal-title-group></journal-meta>\n"
        f'<article-meta><article-id pub-id-type="pmc">{article.id}</article-id>'
        f"<title-group><article-title>{escape(article.title)}</article-title></title-group>"
        f"<pub-date><year>2024</year></pub-date>{_permissions(licence)}"
        f"{_abstract(article.abstract)}</article-meta></front>\n"
        f"<body>{body}</body>\n</article>\n"
    )


def cut_short(xml: str) -> str:
    """Return a file whose transfer broke off half-way."""
    return xml[: len(xml) // 2]


def _paragraph(text: str) -> str:
    """Return a paragraph, or a list if the text has several lines."""
    lines = text.split("\n")
    if len(lines) == 1:
        return f"<p>{escape(text)}</p>"
    items = "".join(f"<list-item><p>{escape(line)}</p></list-item>" for line in lines)
    return f'<list list-type="simple">{items}</list>'


def _abstract(text: str) -> str:
    return f"<abstract><p>{escape(text)}</p></abstract>" if text else ""


def _permissions(licence: str | None) -> str:
    if licence is None:
        return "<permissions><copyright-statement>All rights reserved</copyright-statement></permissions>"
    return f"<permissions><license xlink:href={quoteattr(LICENCES[licence])}/></permissions>"
