from __future__ import annotations

from pathlib import Path

import pytest
from lxml import etree

from biomistral.corpus.documents import Document
from biomistral.corpus.jats import read_article
from biomistral.miniature import jats
from biomistral.miniature.texts import Article

ARTICLE = Article(
    "PMC42",
    "fr",
    "Fièvre <grise> & pluie",
    "Un résumé.",
    (("1", ("Un paragraphe & demi.", "Question: où ?\nRéponse: ici")),),
)


def _read(xml: str, folder: Path) -> Document:
    (document,) = read_article(xml.encode(), "article.xml")
    return document


def test_an_article_is_read_by_the_corpus_as_it_was_written(tmp_path: Path) -> None:
    document = _read(jats.render(ARTICLE, "CC-BY"), tmp_path)
    assert (document.declared_language, document.licence) == ("fr", "CC-BY")
    assert "42" in document.pmcid
    assert document.title == "Fièvre <grise> & pluie"
    for text in ("Un résumé.", "Un paragraphe & demi.", "Question: où ?\nRéponse: ici"):
        assert text in document.text


@pytest.mark.parametrize("licence", jats.LICENCES)
def test_every_licence_is_recognised(licence: str, tmp_path: Path) -> None:
    assert _read(jats.render(ARTICLE, licence), tmp_path).licence == licence


def test_without_a_licence_there_is_none(tmp_path: Path) -> None:
    assert not _read(jats.render(ARTICLE, None), tmp_path).licence


def test_the_language_may_be_left_out() -> None:
    root = etree.fromstring(jats.render(ARTICLE, "CC0", declare_language=False).encode())
    assert not root.xpath("//@xml:lang")


def test_a_file_that_was_cut_short_is_no_xml() -> None:
    with pytest.raises(etree.XMLSyntaxError):
        etree.fromstring(jats.cut_short(jats.render(ARTICLE, "CC0")).encode())
