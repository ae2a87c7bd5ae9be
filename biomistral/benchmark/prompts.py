"""Requests: every question as a model is to see it, after worked examples.

Which examples are drawn depends on task and seed only. Each example has a rank, a hash of task,
seed, split and id; a language takes those of lowest rank among its own. So languages with the same
examples show the same ones, and one that lacks an example shows the next. A language with too few
of its own shows those of English (as published for all languages). With ``examples: per_question``
each question has examples of its own, found by a hash of seed and id; with ``stored`` those that
were published with it.

Validation questions are asked in the same way, to calibrate on: those that no seed shows as an
example, for they are drawn from the same files.

How a prompt looks is in ``templates``. Pure; knows nothing about files or tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from biomistral.benchmark.selection import answered, evenly_spaced
from biomistral.benchmark.tasks import FALLBACK_LANGUAGE, ZERO_SHOT
from biomistral.benchmark.templates import (
    WORDS,
    Render,
    continuations_of,
    form_of,
    shown_in,
)
from biomistral.errors import InputError
from biomistral.recipe.settings import EvaluateSettings
from biomistral.records import Question, Request

Draw = Callable[[Question, int], list[Question]]  # question, seed -> its worked examples


@dataclass(frozen=True)
class _Asked:
    """What is asked in one task and language, and where its examples come from."""

    questions: list[Question]
    shots: int
    draw: Draw


def build_requests(
    questions: Sequence[Question], settings: EvaluateSettings, render: Render | None = None
) -> list[Request]:
    """Build one request per test question, scoring and seed.

    Ordered by task and language (alphabetically), scoring and seed (as in ``settings``), and the
    questions' own order. Seeds that would only repeat another one are left out: without shots one
    for each order of the choices is enough. ``render`` is for ``template: chat``: it turns a user's
    message into a prompt that ends where the answer begins. Tasks, languages and limit are what the
    questions are: ``load_questions`` chose them.

    Raises ``InputError`` if there is nothing to ask, or too few examples for the shots.
    """
    asked: dict[tuple[str, str], list[Question]] = {}
    pools: dict[tuple[str, str], list[Question]] = {}
    for question in questions:
        kind = asked if question.split == "test" else pools
        kind.setdefault((question.task, question.language), []).append(question)
    if not asked:
        raise InputError("questions: hold no question of the split test; nothing can be evaluated")
    requests: list[Request] = []
    for task, language in sorted(asked):
        group = _group(asked[task, language], pools, settings)
        requests += _requests(group, settings, render)
    return requests


def build_validation_requests(
    questions: Sequence[Question],
    settings: EvaluateSettings,
    render: Render | None = None,
    *,
    shots: int | None = None,
) -> list[Request]:
    """Build the same of validation questions, ``settings.validation`` a task and language at most.

    Only for tasks and languages that are evaluated; none with ``examples: stored``, which come with
    test questions only, and none where all serve as examples. ``shots`` instead of those of the
    settings changes the prompts and not which questions are asked.
    """
    if not settings.validation or settings.examples == "stored":
        return []
    most = min(settings.validation, settings.limit or settings.validation)
    tested = {(q.task, q.language): q for q in questions if q.split == "test"}
    pools: dict[tuple[str, str], list[Question]] = {}
    for question in questions:
        if question.split != "test":
            pools.setdefault((question.task, question.language), []).append(question)
    requests: list[Request] = []
    for key in sorted(tested):
        asked = [q for q in pools.get(key, []) if q.split == "validation"]
        if asked:
            whole = _group([tested[key]], pools, settings)
            unshown = evenly_spaced(_unshown(asked, whole.draw, settings.seeds), most)
            fewer = settings if shots is None else settings.model_copy(update={"shots": shots})
            group = replace(_group([tested[key]], pools, fewer), questions=unshown)
            requests += _requests(group, fewer, render) if unshown else []
    return requests


def draw_examples(pool: Sequence[Question], shots: int, seed: int) -> list[Question]:
    """Draw ``shots`` examples of one task; the order of ``pool`` does not matter."""
    drawn = sorted(pool, key=lambda example: _rank(example, seed))[:shots]
    assert all(example.split != "test" for example in drawn), "a test question was drawn"
    return drawn


def order_of(question: Question, number: int) -> tuple[int, ...]:
    """Return order ``number`` of a question's choices: at each place, the index of a choice.

    Order 0 is empty: as it is. The next ones are rotated by one place each, so that after as many
    as there are choices each has stood in every place once; then the same goes on from a start that
    a hash of the question's id draws.
    """
    count = len(question.choices)
    block, shift = divmod(number, count)
    if not number:
        return ()
    start = list(range(count))
    if block:
        key = f"{question.task}\0{question.id}\0{block}"
        start.sort(key=lambda choice: _digest(f"{key}\0{choice}"))
    return tuple(start[(place + shift) % count] for place in range(count))


def _group(
    asked: list[Question], pools: dict[tuple[str, str], list[Question]], settings: EvaluateSettings
) -> _Asked:
    task, language = asked[0].task, asked[0].language
    shots = 0 if task in ZERO_SHOT else settings.shots
    own, english = (pools.get((task, code), []) for code in (language, FALLBACK_LANGUAGE))
    if settings.examples == "stored" and shots:
        by_id = {example.id: example for example in [*english, *own]}
        return _Asked(asked, shots, lambda question, seed: _stored(question, by_id, shots, seed))
    stored = {key.partition(":")[2] for question in asked for key in question.stored_shots}
    own, english = ([e for e in pool if e.id not in stored] for pool in (own, english))
    pool = _pool(own, english, shots, settings.example_language, f"{task} ({language})")
    if settings.examples == "per_question":
        ranked = {seed: draw_examples(pool, len(pool), seed) for seed in settings.seeds}
        return _Asked(
            asked, shots, lambda question, seed: _pick(ranked[seed], question, shots, seed)
        )
    drawn = {seed: draw_examples(pool, shots, seed) for seed in settings.seeds}
    return _Asked(asked, shots, lambda _, seed: drawn[seed])


def _unshown(asked: Sequence[Question], draw: Draw, seeds: Sequence[int]) -> list[Question]:
    """Return the questions that are not among the examples that they would be shown."""

    def is_shown(question: Question) -> bool:
        shown = (example for seed in seeds for example in draw(question, seed))
        return answered(question) in map(answered, shown)

    return [question for question in asked if not is_shown(question)]


def _requests(
    group: _Asked, settings: EvaluateSettings, render: Render | None
) -> Iterator[Request]:
    words = WORDS[group.questions[0].language if settings.prompt_language == "question" else "en"]
    for scoring in settings.scoring:
        form = form_of(scoring, settings.template, words, render)
        for number, seed in enumerate(settings.seeds):
            # Choices that are not shown have no order.
            turn = 0 if scoring == "cloze" else number % settings.permutations
            if not group.shots and number >= (1 if scoring == "cloze" else settings.permutations):
                continue
            for question in group.questions:
                order = order_of(question, turn)
                yield Request(
                    question_id=question.id,
                    task=question.task,
                    language=question.language,
                    shots=group.shots,
                    seed=seed,
                    scoring=scoring,
                    prompt=form.prompt(group.draw(question, seed), shown_in(question, order)),
                    continuations=continuations_of(question, scoring, order),
                    gold=question.gold,
                    order=order,
                )


# --- examples -------------------------------------------------------------------------------------


def _pool(
    own: list[Question], english: list[Question], shots: int, language: str, where: str
) -> list[Question]:
    """Examples in the question's language if it has enough and they are wanted; else in English."""
    pool = own if len(own) >= shots and (language == "question" or not english) else english
    if len(pool) < shots:
        raise InputError(
            f"task {where}: {shots} shots are asked for, but there are only "
            f"{len(own)} train or validation questions in this language and {len(english)} in "
            "English; ask for fewer shots or add a train file (see docs/benchmark.md)"
        )
    return pool


def _pick(ranked: list[Question], question: Question, shots: int, seed: int) -> list[Question]:
    """Draw ``shots`` different examples for one question out of a list whose order says nothing."""
    places: dict[int, None] = {}
    attempt = 0
    while len(places) < shots:
        digest = hashlib.sha256(f"{question.task}\0{seed}\0{question.id}\0{attempt}".encode())
        places.setdefault(int.from_bytes(digest.digest()[:8], "big") % len(ranked))
        attempt += 1
    return [ranked[place] for place in places]


def _stored(
    question: Question, by_id: dict[str, Question], shots: int, seed: int
) -> list[Question]:
    """Return the first ``shots`` examples that were published with a question for a seed."""
    found = [key.partition(":")[2] for key in question.stored_shots if key.startswith(f"{seed}:")]
    if len(found) < shots:
        there = sorted({key.partition(":")[0] for key in question.stored_shots})
        raise InputError(
            f"question {question.id!r} of {question.task} ({question.language}): examples: stored "
            f"asks for {shots} examples of seed {seed}, and {len(found)} came with it (seeds: "
            f"{', '.join(there) or 'none'}); BioInstructQA has seeds 1, 2, 3: use these, or "
            "examples: per_task"
        )
    return [by_id[name] for name in found[:shots]]


def _rank(example: Question, seed: int) -> str:
    return _digest("\0".join((example.task, str(seed), example.split, example.id)))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
