from __future__ import annotations

import random
import re
from typing import Any

import pytest

from biomistral.languages import LANGUAGES
from biomistral.miniature import texts
from biomistral.miniature.world import GENERAL, MEDICAL, NUM_WORDS, OUTCOMES, WORD_RELATIONS, World

RELATIONS = [*MEDICAL, *GENERAL]


def _articles_text(world: World, language: str) -> str:
    articles = texts.medical_articles(world, language, rounds=1)
    parts = [
        text
        for article in articles
        for text in (
            article.title,
            article.abstract,
            *(p for _, paragraphs in article.sections for p in paragraphs),
        )
    ]
    return "\n".join(parts)


# --- the table of sentences -----------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("relation", RELATIONS)
def test_every_relation_is_worded_in_every_language(relation: str, language: str) -> None:
    wordings = texts.relation_phrases(relation, language)
    assert wordings.keys() == {"say", "ask", "test"}
    places = {"say": {"d", "x"}, "ask": {"d"}, "test": {"d"}}
    for style, sentences in wordings.items():
        assert len(set(sentences)) == len(sentences) > 0
        for sentence in sentences:
            assert set(re.findall(r"\{(\w+)\}", sentence)) == places[style], sentence
    assert not set(wordings["test"]) & {*wordings["say"], *wordings["ask"]}


@pytest.mark.parametrize("language", LANGUAGES)
def test_trials_are_worded_in_every_language(language: str) -> None:
    table = texts.phrases()["trial"][language]
    assert table["words"].keys() == table["answers"].keys() == set(OUTCOMES)
    assert len(set(table["answers"].values())) == len(OUTCOMES)
    words = [word for outcome in OUTCOMES for word in table["words"][outcome]]
    assert len(set(words)) == len(words), "a word says one outcome only"
    for sentence in table["say"]:
        assert set(re.findall(r"\{(\w+)\}", sentence)) == {"d", "x", "n"}
    for style in ("ask", "test"):
        for sentence in table[style]:
            assert set(re.findall(r"\{(\w+)\}", sentence)) == {"d", "x"}
    assert not set(table["test"]) & {*table["say"], *table["ask"]}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("relation", WORD_RELATIONS)
def test_answers_that_are_words_are_there_in_every_language(relation: str, language: str) -> None:
    words = texts.phrases()["words"][relation][language]
    assert len(set(words)) == len(words) == NUM_WORDS
    assert all(isinstance(word, str) for word in words), "YAML read a word as something else"


def test_a_table_has_nothing_else() -> None:
    table = texts.phrases()
    assert set(table["medical"]) == set(MEDICAL)
    assert set(table["general"]) == set(GENERAL)
    assert set(table["words"]) == set(WORD_RELATIONS)
    for relation in MEDICAL:
        assert set(table["medical"][relation]) == {"title", *LANGUAGES}


# --- texts ----------------------------------------------------------------------------------------


def test_a_statement_names_the_entity_and_its_answer(invented: World) -> None:
    town = invented.towns[0]
    answer = invented.names["river"][town.facts["river"]]
    said = texts.statement(invented, town, "river", "de", random.Random(0))
    assert town.name in said
    assert answer in said


@pytest.mark.parametrize("language", LANGUAGES)
def test_texts_are_the_same_every_time(language: str, invented: World) -> None:
    def all_of() -> tuple[Any, Any]:
        return (
            texts.general_documents(invented, language, rounds=1),
            texts.medical_articles(invented, language, rounds=1),
        )

    assert all_of() == all_of()


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_fact_is_told_in_every_language(language: str, invented: World) -> None:
    told = re.split(r"\n|(?<=[.。])", _articles_text(invented, language))
    for disease in invented.diseases:
        for relation in MEDICAL:
            answer = texts.answer_names(invented, relation, language)[disease.facts[relation]]
            assert any(disease.name in s and answer in s for s in told), (disease, relation)


@pytest.mark.parametrize("language", LANGUAGES)
def test_general_texts_know_nothing_of_the_diseases_asked_about(
    language: str, invented: World
) -> None:
    text = "\n".join(texts.general_documents(invented, language, rounds=1))
    assert all(town.name in text for town in invented.towns)
    assert not [disease.name for disease in invented.diseases if disease.name in text]
    articles = _articles_text(invented, language)
    assert not [town.name for town in invented.towns if town.name in articles]


@pytest.mark.parametrize("language", LANGUAGES)
def test_articles_are_numbered_apart(language: str, invented: World) -> None:
    articles = texts.medical_articles(invented, language, rounds=2)
    others = [
        texts.medical_articles(invented, code, rounds=2) for code in LANGUAGES if code != language
    ]
    ids = {article.id for article in articles}
    assert len(ids) == len(articles)
    assert not ids & {article.id for other in others for article in other}
    assert all(re.fullmatch(r"PMC\d+", id_) for id_ in ids)
