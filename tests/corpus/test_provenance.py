"""Every text is attributed on one line, and the datasheet says what the counts say."""

from __future__ import annotations

import pytest

from biomistral.advisory import ADVISORY
from biomistral.corpus.provenance import (
    article_name,
    attribution_head,
    attribution_line,
    datasheet,
)
from biomistral.recipe.corpora import CorpusSettings

ROW = {
    "id": "PMC12", "pmcid": "PMC12", "version": 2, "doi": "10.1/bark", "title": "Bark\n works.",
    "journal": "Annals of Bark", "year": 2019, "authors": "Ada Elm", "licence": "CC-BY", "file": "PMC12.2.xml",
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "Ada Elm. Bark works. Annals of Bark, 2019. PMC12.2. https://doi.org/10.1/bark. CC-BY.\n"),
        (
            {"doi": "", "version": None},
            "Ada Elm. Bark works. Annals of Bark, 2019. PMC12. https://pmc.ncbi.nlm.nih.gov/articles/PMC12/. CC-BY.\n",
        ),
        (
            {"pmcid": "", "id": "10.1/bark", "journal": "", "year": None, "title": "Why bark?", "authors": ""},
            "Why bark? https://doi.org/10.1/bark. CC-BY.\n",
        ),
        (
            {"pmcid": "", "doi": "", "id": "a.txt", "title": "", "authors": "", "licence": "", "journal": "", "year": None, "file": "a.txt"},
            "a.txt. No licence given.\n",
        ),
    ],
)  # fmt: skip
def test_a_line_says_what_whose_where_and_under_which_licence(
    changes: dict[str, object], expected: str
) -> None:
    assert attribution_line({**ROW, **changes}) == expected


def test_the_name_of_an_article_has_its_version() -> None:
    assert article_name(ROW) == "PMC12.2"
    assert article_name({**ROW, "version": None}) == "PMC12"
    assert article_name({**ROW, "pmcid": ""}) == "PMC12"


def test_the_head_gives_the_terms_of_the_licences_that_occur() -> None:
    head = attribution_head({"CC-BY": 3, "CC0": 1, "none given": 1})
    assert "CC-BY: https://creativecommons.org/licenses/by/" in head
    assert "CC0: https://creativecommons.org/publicdomain/zero/1.0/" in head
    assert "CC-BY-SA" not in head


def test_the_datasheet_has_the_counts_and_no_patterns() -> None:
    settings = CorpusSettings(articles=["/home/somebody/private/**/*.xml"])
    counts = {
        "documents_kept": 1234, "words": 5678, "tokens": 9012, "rows": 5, "held_out_rows": 1,
        "by_language": {"en": 1200, "fr": 34}, "tokens_by_language": {"en": 9000, "fr": 12},
        "by_licence": {"CC-BY": 1234}, "dropped": {"duplicate": 3}, "padding_fraction": 0.00064,
    }  # fmt: skip
    facts = {"name": "base", "vocabulary_size": 32000, "sha256": "ab" * 32}
    text = datasheet(settings, counts, facts)
    for expected in (
        "1,234 documents",
        "| fr | 34 | 12 |",
        "| duplicate | 3 |",
        "0.064%",
        ADVISORY,
    ):
        assert expected in text
    assert "somebody" not in text
    assert "Nothing." in datasheet(settings, {**counts, "dropped": {}}, facts)
