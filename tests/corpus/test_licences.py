"""A licence is what the text says, and unclear is no."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from lxml import etree

from biomistral.corpus.licences import article_forbids, canonical, decide, licence_of_article

BY = "https://creativecommons.org/licenses/by/4.0/"
ZERO = "http://creativecommons.org/publicdomain/zero/1.0/"


@pytest.mark.parametrize(
    ("link", "licence"),
    [
        (BY, "CC-BY"),
        ("http://creativecommons.org/licenses/by/3/", "CC-BY"),
        ("http://www.creativecommons.org/licenses/by", "CC-BY"),
        ("https://creativecommons.org/licenses/by-sa/4.0", "CC-BY-SA"),
        ("https://creativecommons.org/licenses/by-nd/4.0/", "CC-BY-ND"),
        ("https://creativecommons.org/licenses/by-nc/4.0/", "CC-BY-NC"),
        ("https://creativecommons.org/licenses/by-nc-sa/2.5/it/", "CC-BY-NC-SA"),
        ("http://creativecommons.org/licenses/by-nd-nc/1.0/", "CC-BY-NC-ND"),
        (ZERO, "CC0"),
        ("http://creativecommons.org/publicdomain/mark/1.0/", None),
        ("http://creativecommons.org/licenses/nc-sampling+/1.0/", None),
        ("https://example.org/our-licence", None),
    ],
)
def test_licence_of_a_link(link: str, licence: str | None) -> None:
    assert decide("", [link]) == licence


@pytest.mark.parametrize(
    ("statement", "licence"),
    [
        ("under the terms of the Creative Commons Attribution License, which permits all", "CC-BY"),
        ("the Creative Commons Attribution 4.0 International License", "CC-BY"),
        ("Creative Commons Attribution\u2010NoDerivs License", "CC-BY-ND"),
        ("Creative Commons Attribution Non-Commercial No Derivatives License", "CC-BY-NC-ND"),
        (
            "Creative Commons Attribution-NonCommercial-ShareAlike 4.0 (CC BY-NC-SA 4.0)",
            "CC-BY-NC-SA",
        ),
        ("an article under the CC BY license", "CC-BY"),
        ("made available under the Creative Commons CC0 public domain dedication", "CC0"),
        ("terms of the Creative Commons Public Domain Declaration", "CC0"),
        ("written by government employees and in the public domain in the US", None),
        ("verbatim copying and redistribution of this article are permitted", None),
        ("granted under Creative Commons by the authors", None),
        ("All rights reserved", None),
        ("", None),
    ],
)
def test_licence_of_prose(statement: str, licence: str | None) -> None:
    assert decide(statement, []) == licence


@pytest.mark.parametrize(
    "statement",
    [
        "for non-commercial use only",
        "for noncommercial purposes, provided the work is cited",
        "No commercial use is permitted unless granted",
        "Commercial re-use requires permission of the publisher",
        "The figures may not be used for commercial purposes",
        "uso não comercial",
        "sin fines comerciales",
        "no derivatives may be made",
        "provided the work is not altered or modified",
        "and share alike",
        "Creative Commons Attribution-NonCommercial License",
        "see https://creativecommons.org/licenses/by-nc/4.0/",
    ],
)
def test_a_restriction_beside_a_permissive_link_is_unclear(statement: str) -> None:
    assert decide(statement, [BY]) is None


@pytest.mark.parametrize(
    "statement",
    [
        "for any purpose, even commercially",
        "for both commercial and non-commercial purposes",
        "to remix and adapt, for commercial use, provided the work is cited",
        "The CC0 waiver (http://creativecommons.org/publicdomain/zero/1.0/) applies to the data",
        "No use is permitted which does not comply with these terms",
    ],
)
def test_words_that_restrict_nothing_change_nothing(statement: str) -> None:
    assert decide(statement, [BY]) == "CC-BY"


@pytest.mark.parametrize(
    ("name", "licence"),
    [("CC BY 4.0", "CC-BY"), ("cc-by", "CC-BY"), ("CC0 1.0", "CC0"), ("CC-BY-NC-ND", "CC-BY-NC-ND"),
     ("ccbynclicense", "CC-BY-NC"), ("creativeCommonsBy-nd", "CC-BY-ND"), ("MIT", None), (BY, "CC-BY")],
)  # fmt: skip
def test_canonical_names(name: str, licence: str | None) -> None:
    assert canonical(name) == licence


def article(meta: str, body: str = "") -> etree._Element:
    return etree.fromstring(
        f"<article xmlns:xlink='x' xmlns:ali='a'><front><article-meta>{meta}</article-meta></front>"
        f"<body>{body}</body></article>"
    )


@pytest.mark.parametrize(
    "meta",
    [
        f"<permissions><license xlink:href='{BY}'/></permissions>",
        f"<permissions><license><license-p><ext-link xlink:href='{BY}'>here</ext-link></license-p></license></permissions>",
        f"<permissions><license><ali:license_ref>{BY}</ali:license_ref></license></permissions>",
        "<permissions><license license-type='cc-by'/></permissions>",
        "<copyright-statement>Creative Commons Attribution License</copyright-statement>",
    ],
)
def test_all_places_of_a_licence_are_read(meta: str) -> None:
    assert licence_of_article(article(meta)) == "CC-BY"


def test_the_licence_of_a_figure_is_not_that_of_the_article() -> None:
    figure = f"<fig><permissions><license xlink:href='{BY}'/></permissions></fig>"
    assert licence_of_article(article("", figure)) is None


def test_a_restriction_in_the_copyright_statement_counts() -> None:
    meta = (
        "<permissions><copyright-statement>No commercial use is permitted.</copyright-statement>"
        f"<license xlink:href='{BY}'/></permissions>"
    )
    assert licence_of_article(article(meta)) is None


@pytest.mark.parametrize(
    ("notice", "terms", "licence"),
    [
        ("© 2019 Reyes. All rights reserved.", "Read it.", "CC-BY"),  # who holds it, no more
        ("© 2019 Reyes. Some rights reserved.", "Read it.", "CC-BY"),
        ("© 2019 Reyes.", "All rights reserved.", None),
        ("© 2019 Reyes. CC BY 4.0. All rights reserved.", "Read it.", None),  # it is the licence
        ("© 2019. No part of this work may be reproduced.", "Read it.", None),
    ],
)
def test_rights_are_reserved_by_the_holder_and_not_by_the_licence(
    notice: str, terms: str, licence: str | None
) -> None:
    meta = (
        f"<permissions><copyright-statement>{notice}</copyright-statement>"
        f"<license xlink:href='{BY}'><license-p>{terms}</license-p></license></permissions>"
    )
    assert licence_of_article(article(meta)) == licence
    assert article_forbids(article(meta), "CC-BY") == (licence is None)


def test_real_articles_are_never_taken_for_more_permissive_than_they_are(real_data: Path) -> None:
    """Against a classification made by others: we may refuse more, never accept more."""
    folder = real_data / "jats"
    same = {"by": "CC-BY", "by-nd": "CC-BY-ND", "by-sa": "CC-BY-SA", "cc0": "CC0", "cc0/pd": "CC0"}
    differences: Counter[tuple[str, str | None]] = Counter()
    for line in (folder / "manifest.jsonl").read_text().splitlines():
        facts = json.loads(line)
        if facts["ok"] is True:
            ours = licence_of_article(etree.parse(folder / facts["file"]).getroot())
            if ours != same.get(facts["lic"]):
                differences[facts["lic"], ours] += 1
    # One CC BY article whose copyright line forbids commercial use; two "public domain" sentences
    # that are no dedication. Public Domain Mark and "open access" prose are refused on both sides.
    assert differences == {("by", None): 1, ("cc0/pd", None): 2}


@pytest.mark.parametrize(
    "words",
    [
        "This work is not licensed under the CC BY 4.0 licence",
        "CC BY 4.0, free to read, for personal use only",
        "CC BY 4.0. Text and data mining is prohibited",
        "CC BY 4.0. All rights reserved.",
        "CC BY 4.0. Todos los derechos reservados",
        "CC BY 4.0. No part of this article may be reproduced.",
    ],
)
def test_what_is_said_not_to_be_granted_is_granted_by_no_licence(words: str) -> None:
    assert decide(words, []) is None
    assert decide("CC BY 4.0. It may be used for text and data mining, in personal use too", [])
