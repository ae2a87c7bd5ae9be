"""Training questions that may not be learned from, for they are test questions, or nearly.

A training question is refused if passage, stem and right answer are those of a test question, or
passage, stem and all choices; or if half or more of the words in a row (``ngrams``) of a test
question stand in it. Compared are questions of one language. A test question shorter than 13 words
is only found by the first rule.

Pure; quotes no question: what is refused is told by task and id.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from biomistral.benchmark.contamination import runs_of
from biomistral.ngrams import Runs
from biomistral.records import Question

LEAST_SHARE = 0.5  # of the runs of a test question


@dataclass(frozen=True, slots=True)
class Refusal:
    """A training question that is not learned from, and the test question that is why."""

    task: str
    language: str
    split: str
    question_id: str
    test_task: str
    test_question_id: str
    reason: str


def refuse(training: Sequence[Question], tests: Sequence[Question]) -> list[Refusal]:
    """Return the questions of ``training`` that overlap with one of ``tests``, in their order."""
    same = _Same(tests)
    by_language = {
        code: _Runs([q for q in tests if q.language == code])
        for code in sorted({question.language for question in training})
    }
    refused = []
    for question in training:
        found, reason = same.find(question), "the same question"
        if found is None:
            found, reason = by_language[question.language].find(question), "words in a row"
        if found is not None:
            where = (question.task, question.language, question.split, question.id)
            refused.append(Refusal(*where, found.task, found.id, reason))
    return refused


class _Same:
    """Test questions by what makes two questions the same."""

    def __init__(self, tests: Sequence[Question]) -> None:
        self._known: dict[Hashable, Question] = {}
        for test in tests:
            for key in _keys(test):
                self._known.setdefault(key, test)

    def find(self, question: Question) -> Question | None:
        return next((self._known[key] for key in _keys(question) if key in self._known), None)


def _keys(question: Question) -> Iterator[Hashable]:
    context, stem, *choices = (
        " ".join(text.casefold().split())
        for text in (question.context, question.stem, *question.choices)
    )
    yield question.language, context, stem, choices[question.gold]
    yield question.language, context, stem, frozenset(choices)


class _Runs:
    """Runs of words of test questions, and whose they are.  Shapes: N runs of all questions."""

    def __init__(self, tests: Sequence[Question]) -> None:
        self._tests = list(tests)
        by_key = runs_of(self._tests)  # sorted and distinct, in the order of the questions
        own = [by_key[test.task, test.language, test.id] for test in self._tests]
        self._sizes = np.array([len(runs) for runs in own], dtype=np.int64)
        runs = np.concatenate(own) if own else np.empty(0, np.uint64)  # (N,)
        owners = np.repeat(np.arange(len(own)), self._sizes)  # (N,)
        order = np.argsort(runs, kind="stable")
        self._sorted, self._owners = runs[order], owners[order]
        self._cut = Runs()

    def find(self, question: Question) -> Question | None:
        """The test question with the largest share of its runs in a question, if large enough."""
        parts = (question.context, question.stem, *question.choices)
        runs = np.unique(np.concatenate([self._cut.of(part) for part in parts]))
        first = np.searchsorted(self._sorted, runs, "left")
        last = np.searchsorted(self._sorted, runs, "right")
        hits = [self._owners[a:b] for a, b in zip(first, last, strict=True) if a < b]
        if not hits:
            return None
        owners, counts = np.unique(np.concatenate(hits), return_counts=True)
        shares = counts / self._sizes[owners]
        best = int(np.argmax(shares))
        return self._tests[owners[best]] if shares[best] >= LEAST_SHARE else None
