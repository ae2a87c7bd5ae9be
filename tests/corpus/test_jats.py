"""One file: its documents and facts, or one reason; never a crash, never a repair."""

from __future__ import annotations

import dataclasses

import pytest

from biomistral.corpus.files import UnreadableError
from biomistral.corpus.jats import read_article

LAUGHS = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 12))
HOSTILE = {
    "empty": (b"", "empty"),
    "blank": (b" \n", "empty"),
    "billion laughs": (
        f'<!DOCTYPE article [<!ENTITY l0 "ha">{LAUGHS}]><article><body><p>&l11;</p></body></article>'.encode(),
        "not_well_formed",
    ),
    "quadratic entity": (
        f'<!DOCTYPE article [<!ENTITY a "{"x" * 100_000}">]><article><body><p>{"&a;" * 5000}</p></body></article>'.encode(),
        "not_well_formed",
    ),
    "external entity": (
        b'<!DOCTYPE article [<!ENTITY x SYSTEM "file:///etc/passwd">]><article><body><p>&x;</p></body></article>',
        "not_well_formed",
    ),
    "undefined entity": (b"<article><body><p>TNF-&alpha;</p></body></article>", "not_well_formed"),
    "undefined entity below a DTD": (
        b'<!DOCTYPE article PUBLIC "-//NLM//DTD JATS" "JATS.dtd"><article><body><p>a &mdash; b</p></body></article>',
        "not_well_formed",
    ),
    "external entity of a network": (
        b'<!DOCTYPE article [<!ENTITY x SYSTEM "http://127.0.0.1:9/x">]><article><body><p>&x;</p></body></article>',
        "not_well_formed",
    ),
    "entity of itself": (
        b'<!DOCTYPE article [<!ENTITY a "&b;"><!ENTITY b "&a;">]><article><body><p>&a;</p></body></article>',
        "not_well_formed",
    ),
    "parameter entity": (
        b'<!DOCTYPE article [<!ENTITY % p SYSTEM "file:///etc/passwd"> %p;]><article><body><p>&q;</p></body></article>',
        "not_well_formed",
    ),
    "a text of eleven million letters": (
        b"<article><body><p>" + b"fever " * 1_900_000 + b"</p></body></article>",
        "not_well_formed",
    ),
    "two articles in one file": (b"<article/><article/>", "not_well_formed"),
    "the same attribute twice": (b"<article a='1' a='2'/>", "not_well_formed"),
    "a prefix nobody declared": (b"<article><body><p><x:y/></p></body></article>", "not_well_formed"),
    "bytes after the end": (b"<article/>\x00\x00", "not_well_formed"),
    "another kind of XML": (b"<pmc-articleset><Reply>No result</Reply></pmc-articleset>", "not_an_article"),
    "truncated": (b"<article><body><p>half", "not_well_formed"),
    "bytes of another encoding": ("<article><body><p>fièvre</p></body></article>".encode("latin-1"), "not_well_formed"),
    "unknown encoding": (b'<?xml version="1.0" encoding="klingon"?><article/>', "not_well_formed"),
    "control character": (b"<article><body><p>a\x00b\x01</p></body></article>", "not_well_formed"),
    "error page": (b"<!DOCTYPE html><html><body><h1>503</h1><p>busy</p></body></html>", "not_an_article"),
    "sloppy error page": (b"<html><body><p>503<br>busy</body></html>", "not_well_formed"),
    "not XML": (b"%PDF-1.4 \xff\xfe", "not_well_formed"),
    "deep nesting": (b"<article><body>" + b"<sec>" * 5000, "not_well_formed"),
    "deep cross-references": (
        b"<article><body><p>" + b"<xref>" * 250 + b"x" + b"</xref>" * 250 + b"</p></body></article>",
        "too_deep",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("data", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_has_one_reason(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableError) as caught:
        read_article(data, "k")
    assert caught.value.reason == reason
    assert "passwd" not in caught.value.detail
    assert "root:" not in caught.value.detail


def test_an_entity_of_the_file_itself_is_expanded() -> None:
    data = b'<!DOCTYPE article [<!ENTITY bark "Cortex">]><article><body><p>&bark; works.</p></body></article>'
    assert read_article(data, "k")[0].text == "Cortex works."


def test_a_declared_encoding_is_followed() -> None:
    xml = "<?xml version='1.0' encoding='{}'?><article><body><p>fièvre</p></body></article>"
    for encoding in ("iso-8859-1", "utf-16"):
        data = xml.format(encoding).encode(encoding)
        assert read_article(data, "k")[0].text == "fièvre"


def test_facts_of_an_article(article) -> None:
    front = (
        '<article-id pub-id-type="doi">10.1/ABC</article-id>'
        "<pub-date><year>2021</year></pub-date><pub-date><year>2020</year></pub-date>"
        "<abstract><title>Aim</title><p>To heal.</p></abstract>"
        "<abstract abstract-type='teaser'><p>Wow!</p></abstract>"
    )
    (document,) = read_article(
        article(
            "<p>Text.</p>",
            pmcid="PMC123.2",
            front=front,
            attributes='xml:lang="EN" article-type="case-report"',
        ),
        "k",
    )
    assert document.text == "Bark against valley fever\n\nAim\n\nTo heal.\n\nText."
    assert (document.id, document.doi, document.pmcid) == ("PMC123", "10.1/abc", "PMC123")
    assert (document.year, document.journal) == (2020, "Annals of Bark")
    assert (document.declared_language, document.licence, document.article_type) == (
        "en",
        "CC-BY",
        "case-report",
    )


def test_id_is_pmcid_or_doi_or_key(article) -> None:
    doi = '<article-id pub-id-type="doi">10.1/X</article-id>'
    assert read_article(article(pmcid="77"), "k")[0].id == "PMC77"
    assert read_article(article(front=doi), "k")[0].id == "10.1/x"
    assert read_article(article(), "folder/a.xml")[0].id == "folder/a.xml"


def test_each_language_becomes_a_document(article) -> None:
    review = '<sub-article article-type="reviewer-report"><body><p>Fine.</p></body></sub-article>'
    documents = read_article(
        article(
            "<p>Corpo.</p>",
            pmcid="PMC1",
            attributes='xml:lang="pt" article-type="correction"',
            front='<abstract><p>Resumo.</p></abstract><trans-abstract xml:lang="es"><p>Resumen.</p></trans-abstract>'
            '<abstract xml:lang="fr"><p>Abrégé.</p></abstract>',
            after=f"{review}<sub-article article-type='translation' xml:lang='en'><front-stub><title-group>"
            "<article-title>Bark</article-title></title-group><abstract><p>Summary.</p></abstract></front-stub>"
            f"<body><p>Body.</p></body>{review}</sub-article>",
        ),
        "k",
    )
    assert [(d.id, d.part, d.declared_language, d.text.split("\n\n")[-1]) for d in documents] == [
        ("PMC1", "article", "pt", "Corpo."),
        ("PMC1#abstract1", "abstract", "es", "Resumen."),
        ("PMC1#abstract2", "abstract", "fr", "Abrégé."),
        ("PMC1#1", "sub-article", None, "Fine."),
        ("PMC1#2", "translation", "en", "Body."),
        ("PMC1#3", "sub-article", None, "Fine."),
    ]
    assert documents[4].text == "Bark\n\nSummary.\n\nBody."
    assert documents[4].article_type == "correction"  # as its article, so it is dropped with it


def test_an_article_without_text_in_its_body_says_so() -> None:
    (document,) = read_article(b"<article><body><fig/></body></article>", "k")
    assert not document.has_body


def test_a_namespace_on_everything_changes_nothing(article) -> None:
    plain = article(pmcid="PMC1")
    spaced = plain.replace(
        b"<article ", b'<article xmlns="https://jats.nlm.nih.gov/ns/archiving/1.3/" '
    )
    (found,) = read_article(spaced, "k")
    (expected,) = read_article(plain, "k")
    assert dataclasses.replace(found, source_md5=expected.source_md5) == expected


def test_references_and_back_matter_follow_if_they_are_asked_for(article) -> None:
    back = (
        "<back><ack><p>Thanks.</p></ack><ref-list><title>References</title>"
        "<ref><label>1</label><mixed-citation>Silva A. <italic>Bark</italic>. 2001.</mixed-citation></ref>"
        "<ref><element-citation><name><surname>Reyes</surname></name><year>2003</year></element-citation></ref>"
        "</ref-list></back>"
    )
    data = article("<p>Body.</p>", after=back)
    end = lambda *keep: read_article(data, "k", None, keep)[0].text.split("Body.")[1]  # noqa: E731
    assert end() == ""
    assert end("references") == "\n\nSilva A. Bark. 2001.\nReyes 2003"
    assert end("references", "back_matter") == "\n\nThanks.\n\nSilva A. Bark. 2001.\nReyes 2003"


def test_the_authors_are_named_in_order_people_and_groups() -> None:
    people = """
        <contrib contrib-type="author"><name><surname>Elm</surname><given-names>Ada  B.</given-names>
            </name><xref ref-type="aff">1</xref></contrib>
        <contrib><name-alternatives><name><surname>Oak</surname></name></name-alternatives></contrib>
        <contrib contrib-type="author"><string-name>Li <italic>Wei</italic></string-name></contrib>
        <contrib contrib-type="author"><collab>Bark Group<contrib-group><contrib><name>
            <surname>Nobody</surname></name></contrib></contrib-group></collab></contrib>
        <contrib contrib-type="author"><anonymous/></contrib>
        <contrib contrib-type="editor"><name><surname>Ash</surname></name></contrib>"""
    group = f"<contrib-group>{people}</contrib-group>"
    (found,) = read_article(
        f"<article><front><article-meta>{group}</article-meta></front></article>".encode(), "a.xml"
    )
    assert found.authors == "Ada B. Elm, Oak, Li Wei, Bark Group"


def test_of_very_many_authors_the_first_are_named_and_the_others_counted() -> None:
    people = "".join(f"<contrib><name><surname>N{n}</surname></name></contrib>" for n in range(33))
    meta = f"<front><article-meta><contrib-group>{people}</contrib-group></article-meta></front>"
    (found,) = read_article(f"<article>{meta}</article>".encode(), "a.xml")
    assert found.authors.startswith("N0, N1, ")
    assert found.authors.endswith("N29 and 3 others")
