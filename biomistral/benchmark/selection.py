"""Which questions of a task are evaluated, and which serve as worked examples.

Pure: lists in, lists out. No question is ever both. Nothing is drawn here: samples are evenly
spaced over the file, so they are the same every time and, where translations keep ids and order,
the same questions in every language.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from biomistral.benchmark.tasks import FALLBACK_LANGUAGE
from biomistral.languages import LANGUAGES
from biomistral.records import Question

# Worked examples to choose from: more would only make the artefact larger (MedMCQA has 182,822).
MAX_EXAMPLES = 1000

Item = TypeVar("Item")


@dataclass(slots=True)
class Selection:
    """The questions of one task in one language that are used, and why others are not."""

    evaluated: list[Question] = field(default_factory=list)
    examples: list[Question] = field(default_factory=list)
    reserved: int = 0  # test questions that are examples because there is no other file
    over_limit: int = 0
    giveaways: int = 0  # examples dropped: they have question and answer of a test question


def select(
    tests: Mapping[str, Sequence[Question]],
    pools: Mapping[str, Sequence[Question]],
    *,
    limit: int | None,
    shots_needed: int,
) -> dict[str, Selection]:
    """Select by language from the test and the train and validation questions of one task.

    A language whose examples come from nowhere (neither its own files nor those of English)
    gives up ``shots_needed`` of its test questions, at most half; they are evaluated in no
    language. They do not depend on ``limit``, so a limited run has the prompts of the full one.
    """
    ids = {code: [question.id for question in asked] for code, asked in tests.items()}
    lacking = {
        code: values
        for code, values in ids.items()
        if not pools.get(code) and not pools.get(FALLBACK_LANGUAGE)
    }
    count = min([shots_needed, *(len(values) // 2 for values in lacking.values())])
    reserved_ids = set().union(*aligned_samples(lacking, count).values())
    left = {code: [i for i in values if i not in reserved_ids] for code, values in ids.items()}
    evaluated_ids = aligned_samples(left, limit)

    selections = {}
    for code in dict.fromkeys([*tests, *pools]):
        asked = tests.get(code, ())
        reserved = [
            replace(question, split="train") for question in asked if question.id in reserved_ids
        ]
        remaining = [question for question in asked if question.id not in reserved_ids]
        candidates = [*pools.get(code, ()), *(reserved if code in lacking else ())]
        examples = without_giveaways(candidates, remaining)
        evaluated = [question for question in remaining if question.id in evaluated_ids[code]]
        selections[code] = Selection(
            evaluated=evaluated,
            examples=evenly_spaced(examples, MAX_EXAMPLES),
            reserved=len(reserved),
            over_limit=len(remaining) - len(evaluated),
            giveaways=len(candidates) - len(examples),
        )
    return selections


def evenly_spaced(items: Sequence[Item], count: int | None) -> list[Item]:
    """Return ``count`` items in their order, one from the middle of each of ``count`` equal parts."""
    if count is None or count >= len(items):
        return list(items)
    return [items[(2 * index + 1) * len(items) // (2 * count)] for index in range(count)]


def aligned_samples(ids: Mapping[str, Sequence[str]], count: int | None) -> dict[str, set[str]]:
    """Take evenly spaced ids of each language: those of the first one wherever all are there.

    The first is the first of ``LANGUAGES`` that has ``count`` ids.
    """
    first: list[str] = []
    samples = {}
    for code in sorted(ids, key=list(LANGUAGES).index):
        sample = evenly_spaced(ids[code], count)
        if len(first) == len(sample) == count and set(first) <= set(ids[code]):
            sample = first
        samples[code] = set(sample)
        if not first and len(sample) == count:
            first = sample
    return samples


def without_giveaways(examples: Sequence[Question], asked: Sequence[Question]) -> list[Question]:
    """Drop the examples that have passage, question and right answer of a question asked."""
    known = {answered(question) for question in asked}
    return [example for example in examples if answered(example) not in known]


def num_equal_choices(questions: Sequence[Question]) -> int:
    """Count the questions of which two choices are the same text."""
    return sum(len(set(question.choices)) < len(question.choices) for question in questions)


def reasons(selection: Selection) -> Counter[str]:
    """Name why questions of a selection are left out, with their numbers; none that is zero."""
    return +Counter(
        {
            "kept as worked examples": selection.reserved,
            "over the limit": selection.over_limit,
            "examples that give an answer away": selection.giveaways,
        }
    )


def answered(question: Question) -> tuple[str, str, str]:
    """Passage, question and right answer, without regard to case and blanks."""
    texts = (question.context, question.stem, question.choices[question.gold])
    context, stem, answer = (" ".join(text.casefold().split()) for text in texts)
    return context, stem, answer
