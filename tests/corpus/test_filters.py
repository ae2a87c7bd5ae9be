"""Keep, or drop with the first reason that holds."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from biomistral.corpus.documents import Document
from biomistral.corpus.filters import Overlap, reason_to_drop, with_language
from biomistral.ngrams import Runs
from biomistral.recipe.settings import CorpusSettings

SETTINGS = CorpusSettings(articles=["*.xml"], minimum_words=5, languages=["en", "pt"])
GOOD = Document(
    id="PMC1",
    pmcid="PMC1",
    file="1.xml",
    text="The fever of the valley was gone.",
    language="en",
    licence="CC-BY",
    article_type="research-article",
)


def test_a_good_article_is_kept() -> None:
    assert reason_to_drop(GOOD, SETTINGS) == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"problem": "not_well_formed", "licence": None}, "not_well_formed"),
        ({"part": "sub-article"}, "sub_article"),
        ({"article_type": "retraction"}, "article_type"),
        ({"article_type": "correction"}, "article_type"),
        ({"article_type": "erratum"}, "article_type"),
        ({"title": "RETRACTED: Bark heals"}, "retracted"),
        ({"title": "[Retracted Article] Bark heals"}, "retracted"),
        ({"has_body": False}, "no_body"),
        ({"licence": None}, "licence_unclear"),
        ({"licence": "CC-BY-NC"}, "licence_not_allowed"),
        ({"language": "es"}, "language"),
        ({"language": None}, "language"),
        ({"text": "<p>The fever</p> <td>was gone</td> " * 5}, "markup"),
        ({"text": "Only four words here"}, "too_short"),
        ({"is_retracted": True}, "retracted"),
        ({"is_ocr": True}, "ocr"),
        ({"licence_vetoed": True}, "licence_vetoed"),
        ({"text": "The fever of the valley was gone.\n" * 20}, "repeated_lines"),
    ],
)
def test_each_reason(changes: dict[str, object], reason: str) -> None:
    assert reason_to_drop(dataclasses.replace(GOOD, **changes), SETTINGS) == reason


def test_only_the_article_types_asked_for_are_kept() -> None:
    wanted = SETTINGS.model_copy(update={"article_types": ["case-report", "retraction"]})
    assert reason_to_drop(GOOD, wanted) == "article_type"
    for kind in wanted.article_types:
        assert reason_to_drop(dataclasses.replace(GOOD, article_type=kind), wanted) == ""
    own = dataclasses.replace(GOOD, part="text", article_type="", needs_licence=False)
    assert reason_to_drop(own, wanted) == ""


def test_quality_rules_may_be_left_out() -> None:
    repeated = dataclasses.replace(GOOD, text="The fever of the valley was gone.\n" * 20)
    lenient = SETTINGS.model_copy(update={"quality": False})
    assert reason_to_drop(repeated, lenient) == ""


@pytest.mark.parametrize(
    "title", ["Retracted stitches heal", "Withdrawal from opioids", "Retraction of the lung"]
)
def test_a_title_that_only_speaks_of_it_is_not_retracted(title: str) -> None:
    assert reason_to_drop(dataclasses.replace(GOOD, title=title), SETTINGS) == ""


def test_an_article_may_speak_of_markup() -> None:
    assert (
        reason_to_drop(dataclasses.replace(GOOD, text=GOOD.text + " It ends with </p>."), SETTINGS)
        == ""
    )


def test_own_text_needs_no_licence_but_a_given_one_counts() -> None:
    own = dataclasses.replace(GOOD, part="text", needs_licence=False, licence=None)
    assert reason_to_drop(own, SETTINGS) == ""
    given = dataclasses.replace(own, needs_licence=True)  # given, and not understood
    assert reason_to_drop(given, SETTINGS) == "licence_unclear"


def test_a_short_text_is_in_its_declared_language_a_long_one_in_its_own() -> None:
    declared = dataclasses.replace(GOOD, declared_language="pt")
    assert with_language(declared).language == "pt"
    assert with_language(dataclasses.replace(declared, text=GOOD.text * 20)).language == "en"
    assert with_language(dataclasses.replace(GOOD, language=None)).language == "en"
    assert with_language(dataclasses.replace(declared, text="1 2 3 " * 200)).language == "pt"


def test_a_document_with_a_run_of_a_test_question_is_dropped_and_others_are_not() -> None:
    runs = Runs(4)
    overlap = Overlap(np.unique(runs.of("the bark of a grey willow")), 4)
    dropped = dataclasses.replace(GOOD, text="She gave him the bark of a Grey, willow tea.")
    assert overlap.reason_to_drop(dropped) == "benchmark_overlap"
    assert (
        overlap.reason_to_drop(dataclasses.replace(GOOD, text="the bark of an elm, of a grey elm"))
        == ""
    )
    assert Overlap(np.empty(0, np.uint64), 4).reason_to_drop(dropped) == ""
