"""A few questions with what the models gave to each choice: a taste, not a measurement.

Which questions are shown depends on their ids only, never on how well anybody did.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from biomistral.languages import LANGUAGES
from biomistral.records import Prediction, Question

NUM_SAMPLES = 8
_LONGEST_CONTEXT = 1200  # characters; a whole abstract, not a whole article


@dataclass(frozen=True, slots=True)
class Answer:
    """One model's answer: probability of each choice, renormalised over them, mean over seeds."""

    model: str
    probabilities: tuple[float, ...]
    choice: int  # the most probable; the first of equals


@dataclass(frozen=True, slots=True)
class Sample:
    """One question and all answers to it."""

    question: Question
    task_title: str
    language: str  # name, in English
    direction: str  # value of HTML's dir attribute
    answers: tuple[Answer, ...]


Key = tuple[str, str, str]  # language, task, id of a question


def choose(keys: Iterable[Key], languages: Sequence[str]) -> list[Key]:
    """Choose up to ``NUM_SAMPLES`` of the keys: every language, then other tasks.

    Goes round the languages, taking another task each time, and within a task the question whose
    id has the smallest hash: an order that nobody chose.
    """
    pools: dict[str, dict[str, Key]] = {code: {} for code in languages}
    for key in keys:
        language, task, _ = key
        best = pools.get(language, {}).get(task, key)
        if language in pools:
            pools[language][task] = min(best, key, key=_lot)
    chosen: list[Key] = []
    most = max((len(pool) for pool in pools.values()), default=0)
    for turn in range(most):
        for place, pool in enumerate(pools.values()):
            if turn < len(pool):
                tasks = sorted(pool)
                chosen.append(pool[tasks[(turn + place) % len(tasks)]])
    return chosen[:NUM_SAMPLES]


def make_sample(
    question: Question, task_title: str, predictions: Sequence[Prediction], models: Sequence[str]
) -> Sample:
    """Join a question with its predictions; ``models`` gives the order of the answers."""
    language = LANGUAGES.get(question.language)
    answers = [
        _answer(model, [p for p in predictions if p.model == model])
        for model in models
        if any(p.model == model for p in predictions)
    ]
    return Sample(
        question=question,
        task_title=task_title,
        language=language.name if language else question.language,
        direction=language.direction if language else "auto",
        answers=tuple(answers),
    )


def shortened(text: str) -> str:
    """Cut a long passage at a word; says so by an ellipsis."""
    if len(text) <= _LONGEST_CONTEXT:
        return text
    return text[:_LONGEST_CONTEXT].rsplit(" ", 1)[0] + " …"


def _answer(model: str, predictions: Sequence[Prediction]) -> Answer:
    rows = [_probabilities(prediction.logprobs) for prediction in predictions]
    means = tuple(fmean(column) for column in zip(*rows, strict=True))
    return Answer(model, means, means.index(max(means)))


def _probabilities(logprobs: Sequence[float]) -> list[float]:
    top = max(logprobs)
    weights = [math.exp(value - top) for value in logprobs]
    return [weight / sum(weights) for weight in weights]


def _lot(key: Key) -> str:
    return hashlib.sha256("\0".join(key).encode()).hexdigest()
