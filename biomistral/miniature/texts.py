"""What is written in the invented world: general documents, articles and questions, as records.

Every document is a function of the world, its language and a generator; sentences come from
``phrases.yaml``. Questions of the benchmark use wordings that no text here uses.
Knows nothing about files or XML.
"""

from __future__ import annotations

import functools
import importlib.resources
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from biomistral.languages import LANGUAGES
from biomistral.miniature.world import MEDICAL, OUTCOMES, WORD_RELATIONS, Entity, World

QUESTIONS_A_PAGE = 5
TRIAL_PAGES_A_ROUND = 8

Sections = tuple[tuple[str, tuple[str, ...]], ...]  # heading, paragraphs
Content = tuple[str, str, Sections]  # title, abstract, sections


@dataclass(frozen=True)
class Article:
    """A medical article before it becomes XML."""

    id: str  # PMC number of the invented archive
    language: str
    title: str
    abstract: str
    sections: Sections


@functools.cache
def phrases() -> dict[str, Any]:
    """Return the sentence table, as read from ``phrases.yaml``."""
    text = (importlib.resources.files("biomistral.miniature") / "phrases.yaml").read_text("utf-8")
    table: dict[str, Any] = yaml.safe_load(text)
    return table


def relation_phrases(relation: str, language: str) -> dict[str, list[str]]:
    """Wordings of one relation in one language: ``say``, ``ask`` and ``test``."""
    table = phrases()
    section = table["medical"] if relation in table["medical"] else table["general"]
    wordings: dict[str, list[str]] = section[relation][language]
    return wordings


def answer_names(world: World, relation: str, language: str) -> Sequence[str]:
    """All answers of a relation, as written in a language."""
    if relation in WORD_RELATIONS:
        words: list[str] = phrases()["words"][relation][language]
        return words
    return world.names[relation]


def statement(
    world: World, entity: Entity, relation: str, language: str, rng: random.Random
) -> str:
    """One sentence that states a fact, in a wording drawn at random."""
    answer = answer_names(world, relation, language)[entity.facts[relation]]
    wording = rng.choice(relation_phrases(relation, language)["say"])
    return wording.format(d=entity.name, x=answer)


def question_and_answer(
    world: World, entity: Entity, relation: str, language: str, rng: random.Random
) -> str:
    """A fact as question and answer, in a wording that texts use and the benchmark does not."""
    answer = answer_names(world, relation, language)[entity.facts[relation]]
    wording = rng.choice(relation_phrases(relation, language)["ask"])
    return f"Question: {wording.format(d=entity.name)}\nAnswer: {answer}"


def trial_report(
    disease: str, drug: str, outcome: str, language: str, rng: random.Random, *, style: str
) -> tuple[str, str, str]:
    """A short report of a trial, a question about it, and the answer its outcome gives.

    ``style`` is ``ask`` for texts and ``test`` for the benchmark.
    """
    table = phrases()["trial"][language]
    number = rng.choice(table["words"][outcome])
    report = rng.choice(table["say"]).format(d=disease, x=drug, n=number)
    question = rng.choice(table[style]).format(d=disease, x=drug)
    return report, question, table["answers"][outcome]


def general_documents(world: World, language: str, *, rounds: int) -> list[str]:
    """General-language texts: towns and long-known ailments, told of and asked about.

    In each round every fact is stated once and asked about once, as in the articles.
    """
    rng = random.Random(f"{world.seed} general {language}")
    documents: list[str] = []
    for _ in range(rounds):
        for entities in (world.towns, world.ailments):
            relations = list(entities[0].facts)
            for entity in entities:
                told = rng.sample(relations, len(relations))
                documents.append(" ".join(statement(world, entity, r, language, rng) for r in told))
            for relation in relations:
                pages = _question_pages(world, entities, relation, language, rng)
                documents += ["\n\n".join(page) for page in pages]
    rng.shuffle(documents)
    return documents


def _question_pages(
    world: World, entities: Sequence[Entity], relation: str, language: str, rng: random.Random
) -> list[tuple[str, ...]]:
    """One relation asked of everything, a few a page, as the worked examples of a benchmark are."""
    shuffled = rng.sample(entities, len(entities))
    asked = [question_and_answer(world, e, relation, language, rng) for e in shuffled]
    return [
        tuple(asked[start : start + QUESTIONS_A_PAGE])
        for start in range(0, len(asked), QUESTIONS_A_PAGE)
    ]


def medical_articles(world: World, language: str, *, rounds: int) -> list[Article]:
    """Articles on every disease, and question pages that compare diseases.

    In each round every fact is stated once and asked about once.
    """
    rng = random.Random(f"{world.seed} articles {language}")
    contents: list[Content] = []
    for _ in range(rounds):
        contents += [_disease_article(world, disease, language, rng) for disease in world.diseases]
        for relation in MEDICAL:
            title = phrases()["medical"][relation]["title"]
            pages = _question_pages(world, world.diseases, relation, language, rng)
            contents += [(title, "", (("1", page),)) for page in pages]
        contents += _trial_pages(world, language, rng)
    first = 9_900_000 + 10_000 * list(LANGUAGES).index(language)
    return [
        Article(f"PMC{first + number}", language, title, abstract, sections)
        for number, (title, abstract, sections) in enumerate(contents)
    ]


def _disease_article(world: World, disease: Entity, language: str, rng: random.Random) -> Content:
    """Return everything about one disease: title, abstract and sections."""
    relations = rng.sample(MEDICAL, len(MEDICAL))
    told = [statement(world, disease, relation, language, rng) for relation in relations]
    return disease.name, " ".join(told[:4]), (("1", (" ".join(told[4:]),)),)


def _trial_pages(world: World, language: str, rng: random.Random) -> list[Content]:
    """Short reports of trials of some drug for some disease, each with the question it answers."""
    pages: list[Content] = []
    for _ in range(TRIAL_PAGES_A_ROUND):
        reports = []
        for outcome in rng.sample(OUTCOMES, len(OUTCOMES)):
            disease = rng.choice(world.diseases).name
            drug = rng.choice(world.names["treatment"])
            report, question, answer = trial_report(
                disease, drug, outcome, language, rng, style="ask"
            )
            reports.append(f"{report}\nQuestion: {question}\nAnswer: {answer}")
        pages.append((phrases()["trial"]["title"], "", (("1", tuple(reports)),)))
    return pages
