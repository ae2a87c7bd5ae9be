"""Prompts: a question as a model is to see it, after worked examples.

*letter* is the template of BioMistral (arXiv 2402.10373, ``BioInstructQA.py``) to the byte, odd
blanks included: choices are shown by letter, the prompt ends in an open bracket, a continuation is
a bare letter. *cloze* shows no choices: a continuation is the text of a choice.

Which examples are drawn depends on task and seed only. Each example has a rank, a hash of task,
seed, split and id; a language takes those of lowest rank among its own. So languages with the same
examples show the same ones, and one that lacks an example shows the next. A language with too few
of its own shows those of English (as published for all languages).

Pure; knows nothing about files or tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from biomistral.benchmark.tasks import FALLBACK_LANGUAGE
from biomistral.errors import InputError
from biomistral.recipe.settings import EvaluateSettings
from biomistral.records import LETTERS, Question, Request, Scoring

INSTRUCTION = (
    "The following are multiple choice questions (with answers) about medical knowledge. \n "
)
JOINT = " \n "  # between the parts of an example, and between examples


def build_requests(questions: Sequence[Question], settings: EvaluateSettings) -> list[Request]:
    """Build one request per test question, scoring and seed.

    Ordered by task and language (alphabetically), scoring and seed (as in ``settings``), and the
    questions' own order. Without shots all seeds are alike, and only the first is used. Tasks,
    languages and limit are what the questions are: ``load_questions`` chose them.

    Raises ``InputError`` if there is nothing to ask, or too few examples for the shots.
    """
    asked: dict[tuple[str, str], list[Question]] = {}
    pools: dict[tuple[str, str], list[Question]] = {}
    for question in questions:
        kind = asked if question.split == "test" else pools
        kind.setdefault((question.task, question.language), []).append(question)
    if not asked:
        raise InputError("questions: hold no question of the split test; nothing can be evaluated")

    seeds = settings.seeds if settings.shots else settings.seeds[:1]
    requests: list[Request] = []
    for task, language in sorted(asked):
        pool = _pool(pools, task, language, settings.shots)
        for scoring in settings.scoring:
            for seed in seeds:
                examples = draw_examples(pool, settings.shots, seed)
                requests += _requests(asked[task, language], examples, scoring, seed)
    return requests


def draw_examples(pool: Sequence[Question], shots: int, seed: int) -> list[Question]:
    """Draw ``shots`` examples of one task; the order of ``pool`` does not matter."""
    drawn = sorted(pool, key=lambda example: _rank(example, seed))[:shots]
    assert all(example.split != "test" for example in drawn), "a test question was drawn"
    return drawn


@dataclass(frozen=True, slots=True)
class _Form:
    """One way to ask: what is shared by all questions of a seed, and what is their own."""

    opening: Callable[[Sequence[Question]], str]  # examples -> beginning of the prompt
    closing: Callable[[Question], str]  # question -> rest of the prompt
    continuations: Callable[[Question], tuple[str, ...]]


def _requests(
    asked: Sequence[Question], examples: Sequence[Question], scoring: Scoring, seed: int
) -> Iterator[Request]:
    form = _FORMS[scoring]
    opening = form.opening(examples)
    for question in asked:
        yield Request(
            question_id=question.id,
            task=question.task,
            language=question.language,
            shots=len(examples),
            seed=seed,
            scoring=scoring,
            prompt=opening + form.closing(question),
            continuations=form.continuations(question),
            gold=question.gold,
        )


def _pool(
    pools: dict[tuple[str, str], list[Question]], task: str, language: str, shots: int
) -> list[Question]:
    """Examples in the question's language if it has enough, otherwise in English."""
    own, english = (pools.get((task, code), []) for code in (language, FALLBACK_LANGUAGE))
    pool = own if len(own) >= shots else english
    if len(pool) < shots:
        raise InputError(
            f"task {task} ({language}): {shots} shots are asked for, but there are only "
            f"{len(own)} train or validation questions in this language and {len(english)} in "
            "English; ask for fewer shots or add a train file (see docs/benchmark.md)"
        )
    return pool


def _rank(example: Question, seed: int) -> str:
    key = "\0".join((example.task, str(seed), example.split, example.id))
    return hashlib.sha256(key.encode()).hexdigest()


# --- letter: the published template ---------------------------------------------------------------


def _letter_opening(examples: Sequence[Question]) -> str:
    return INSTRUCTION + "".join(
        _letter_question(example) + LETTERS[example.gold] + JOINT for example in examples
    )


def _letter_question(question: Question) -> str:
    context = [question.context] if question.context else []
    choices = [
        f"({letter}) {choice}" for letter, choice in zip(LETTERS, question.choices, strict=False)
    ]
    return JOINT.join([*context, f"**Question:** {question.stem}", *choices, "**Answer:**("])


def _letter_continuations(question: Question) -> tuple[str, ...]:
    return tuple(LETTERS[: len(question.choices)])


# --- cloze ----------------------------------------------------------------------------------------


def _cloze_opening(examples: Sequence[Question]) -> str:
    return "".join(
        f"{_cloze_question(example)} {example.choices[example.gold]}\n\n" for example in examples
    )


def _cloze_question(question: Question) -> str:
    context = f"{question.context}\n" if question.context else ""
    return f"{context}Question: {question.stem}\nAnswer:"


def _cloze_continuations(question: Question) -> tuple[str, ...]:
    return tuple(f" {choice}" for choice in question.choices)


_FORMS: dict[Scoring, _Form] = {
    "letter": _Form(_letter_opening, _letter_question, _letter_continuations),
    "published": _Form(_letter_opening, _letter_question, _letter_continuations),
    "cloze": _Form(_cloze_opening, _cloze_question, _cloze_continuations),
}
