from __future__ import annotations

import re
from collections import Counter

import pytest

from biomistral.languages import LANGUAGES
from biomistral.miniature.quizzes import FIVE_OPTIONS, TOWNS, TRIAL, questions, task_titles
from biomistral.miniature.texts import (
    answer_names,
    general_documents,
    medical_articles,
    phrases,
    relation_phrases,
)
from biomistral.miniature.world import World
from biomistral.records import Question

TASKS = list(task_titles())


def _entity_of(question: Question, world: World) -> str:
    names = [e.name for e in (*world.diseases, *world.towns) if e.name in question.stem]
    assert len(names) == 1
    return names[0]


def test_there_are_ten_medical_tasks_and_a_general_one() -> None:
    groups = Counter(group for _, group in task_titles().values())
    assert groups == {"medical": 10, "general": 1}
    assert len({title for title, _ in task_titles().values()}) == 11


@pytest.mark.parametrize("task", TASKS)
def test_all_languages_ask_the_same_in_the_same_order(task: str, invented: World) -> None:
    """Wordings differ in number; questions of one id agree in split, gold and number of choices."""
    english = {q.id: q for q in questions(invented, task, "en")}
    for language in LANGUAGES:
        for question in questions(invented, task, language):
            twin = english[question.id]
            assert (question.split, question.gold) == (twin.split, twin.gold)
            assert (
                len(question.choices)
                == len(twin.choices)
                == ({FIVE_OPTIONS: 5, TRIAL: 3}.get(task, 4))
            )


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_questions_are_well_made(task: str, language: str, invented: World) -> None:
    asked = questions(invented, task, language)
    assert asked == questions(invented, task, language)
    assert len({question.id for question in asked}) == len(asked)
    assert {question.split for question in asked} == {"train", "validation", "test"}
    for question in asked:
        assert len(set(question.choices)) == len(question.choices)
        assert bool(question.context) == (task == TRIAL)


@pytest.mark.parametrize("task", [task for task in TASKS if task not in (TRIAL, TOWNS)])
def test_the_gold_answer_is_the_fact(task: str, invented: World) -> None:
    facts = {disease.name: disease.facts for disease in invented.diseases}
    relation = "treatment" if task == FIVE_OPTIONS else task
    for language in ("en", "zh"):
        for question in questions(invented, task, language):
            index = facts[_entity_of(question, invented)][relation]
            answer = answer_names(invented, relation, language)[index]
            assert question.choices[question.gold] == answer


def test_the_gold_answer_of_a_trial_is_in_its_report(invented: World) -> None:
    for language in LANGUAGES:
        table = phrases()["trial"][language]
        for question in questions(invented, TRIAL, language):
            outcome = next(
                outcome
                for outcome, answer in table["answers"].items()
                if answer == question.choices[question.gold]
            )
            assert any(word in question.context for word in table["words"][outcome])


@pytest.mark.parametrize("task", [task for task in TASKS if task != TRIAL])
def test_no_entity_is_asked_about_in_two_splits(task: str, invented: World) -> None:
    splits: dict[str, set[str]] = {}
    for question in questions(invented, task, "en"):
        splits.setdefault(_entity_of(question, invented), set()).add(question.split)
    assert all(len(found) == 1 for found in splits.values())


def test_gold_answers_stand_in_every_place_about_as_often(invented: World) -> None:
    tasks = [task for task in TASKS if task not in (TRIAL, FIVE_OPTIONS)]
    golds = Counter(
        q.gold for task in tasks for q in questions(invented, task, "en") if q.split == "test"
    )
    assert golds.keys() == {0, 1, 2, 3}
    share = {place: number / golds.total() for place, number in golds.items()}
    assert all(0.17 < value < 0.33 for value in share.values()), share
    trial = Counter(q.gold for q in questions(invented, TRIAL, "en") if q.split == "test")
    assert len(set(trial.values())) == 1


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_wording_of_the_benchmark_occurs_in_a_text(language: str, invented: World) -> None:
    text = "\n".join(general_documents(invented, language, rounds=2))
    for article in medical_articles(invented, language, rounds=2):
        paragraphs = [p for _, section in article.sections for p in section]
        text += "\n".join(["", article.abstract, *paragraphs])
    wordings = [
        wording
        for section in ("medical", "general")
        for relation in phrases()[section]
        for wording in relation_phrases(relation, language)["test"]
    ]
    for wording in [*wordings, *phrases()["trial"][language]["test"]]:
        # With any words in the place of its names.
        pattern = re.sub(r"\\\{\w\\\}", r"[^\\n]{1,40}?", re.escape(wording))
        assert not re.search(pattern, text), wording
