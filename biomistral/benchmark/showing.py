"""What a model is given for one question, as a text for a person.

Everything is made by the same functions as in an evaluation. Knows nothing about models.
"""

from __future__ import annotations

from collections.abc import Sequence

from biomistral.benchmark.catalogue import choose, read_catalogue
from biomistral.benchmark.prompts import build_requests
from biomistral.benchmark.questions import questions_of
from biomistral.benchmark.templates import Render
from biomistral.errors import InputError
from biomistral.models.control_tokens import without_marks
from biomistral.recipe.settings import BenchmarkSettings, EvaluateSettings
from biomistral.records import LETTERS, Question, Request


def show_question(
    benchmark: BenchmarkSettings,
    settings: EvaluateSettings,
    *,
    number: int = 1,
    question_id: str | None = None,
    render: Render | None = None,
) -> str:
    """Return prompt, continuations and right answer of one question, for each seed and scoring.

    ``settings`` name one task and one language; ``number`` counts the evaluated questions from 1,
    ``question_id`` names one instead.

    Raises ``InputError`` as evaluating does, and if there is no such question.
    """
    questions = _evaluated(benchmark, settings)
    tests = [question for question in questions if question.split == "test"]
    asked = _one(tests, number, question_id)
    examples = [question for question in questions if question.split != "test"]
    requests = build_requests([asked, *examples], settings, render)
    place = tests.index(asked) + 1
    heading = (
        f"question {asked.id!r}, number {place} of {len(tests)} of {asked.task} ({asked.language})"
    )
    return "\n\n".join([heading, *(_text(request, asked) for request in requests)]) + "\n"


def _evaluated(benchmark: BenchmarkSettings, settings: EvaluateSettings) -> list[Question]:
    """Questions and examples as ``load_questions`` writes them, of one task and language."""
    if settings.tasks == "all" or len(settings.tasks) != 1 or len(settings.languages) != 1:
        raise InputError("show: name one task and one language")
    catalogue = read_catalogue(benchmark.data, benchmark.hub, benchmark.translations)
    ((name, codes),) = choose(catalogue, settings.tasks, settings.languages).languages.items()
    needed = settings.shots * len(settings.seeds)
    return questions_of(catalogue, name, codes, settings.limit, needed)


def _one(tests: Sequence[Question], number: int, question_id: str | None) -> Question:
    if question_id is not None:
        for question in tests:
            if question.id == question_id:
                return question
        raise InputError(
            f"show: no evaluated question has the id {question_id!r}; ids are like "
            f"{', '.join(question.id for question in tests[:3])}"
        )
    if not 1 <= number <= len(tests):
        raise InputError(f"show: there is no question {number}; numbers go from 1 to {len(tests)}")
    return tests[number - 1]


def _text(request: Request, question: Question) -> str:
    shown = f", choices in the order {', '.join(map(str, request.order))}" if request.order else ""
    title = f"seed {request.seed}, {request.shots} shots, {request.scoring} scoring{shown}"
    marks = [" <- right" if i == request.gold else "" for i in range(len(question.choices))]
    scored = [
        f"  {LETTERS[i]}. {continuation!r}: {choice}{mark}"
        for i, (continuation, choice, mark) in enumerate(
            zip(request.continuations, question.choices, marks, strict=True)
        )
    ]
    return "\n".join(
        [
            f"--- {title}",
            f"{without_marks(request.prompt)}|",
            "--- what is scored behind |",
            *scored,
        ]
    )
