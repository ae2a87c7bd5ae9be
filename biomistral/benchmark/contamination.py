"""Test questions that stand in other texts, found by words in a row (``ngrams``).

A question is its passage, stem and choices, one text each; a run of words that crosses from one to
the next is not looked for. A question of which no part is long enough cannot be judged, and is
counted as such. Nothing here quotes a question: what is found is told by task and id.

Pure; knows nothing about where texts come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from biomistral.ngrams import WIDTH, Hashes, Runs, are_in
from biomistral.records import Question, TaskOverlap

Key = tuple[str, str, str]  # task, language, id


@dataclass(frozen=True, slots=True)
class Overlap:
    """How much of one question was found in the texts."""

    task: str
    language: str
    question_id: str
    num_runs: int  # of words in the question; 0: too short to be judged
    num_found: int

    @property
    def share(self) -> float:
        """Share of the question's runs that were found; 0 if it has none."""
        return self.num_found / self.num_runs if self.num_runs else 0.0


def runs_of(questions: Iterable[Question], width: int = WIDTH) -> dict[Key, Hashes]:
    """Return the different runs of words of each test question, sorted."""
    runs = Runs(width)
    return {
        (q.task, q.language, q.id): np.unique(np.concatenate([runs.of(part) for part in _parts(q)]))
        for q in questions
        if q.split == "test"
    }


def all_of(wanted: Mapping[Key, Hashes]) -> Hashes:
    """Return the runs of all questions, sorted and each once."""
    return np.unique(np.concatenate(list(wanted.values()))) if wanted else np.empty(0, np.uint64)


def overlaps(
    questions: Sequence[Question], texts: Iterable[str], width: int = WIDTH
) -> list[Overlap]:
    """Look for test questions in texts, in the order of the questions.

    Texts are read once and none is kept.
    """
    wanted = runs_of(questions, width)
    return judge(wanted, seen_in(texts, all_of(wanted), width))


def seen_in(texts: Iterable[str], known: Hashes, width: int = WIDTH) -> Hashes:
    """Return those of some runs, which are sorted, that stand in texts; sorted, too."""
    found = np.zeros(len(known), dtype=np.bool_)
    runs = Runs(width)
    for text in texts:
        in_text = runs.of(text)
        seen = in_text[are_in(in_text, known)]
        found[np.searchsorted(known, seen)] = True
    return known[found]


def judge(wanted: Mapping[Key, Hashes], seen: Hashes) -> list[Overlap]:
    """Say for each question, with its runs, how many of them are among those that were seen."""
    return [Overlap(*key, len(own), int(are_in(own, seen).sum())) for key, own in wanted.items()]


def by_task(found: Iterable[Overlap]) -> list[TaskOverlap]:
    """Sum up by task and language, in order of first appearance."""
    groups: dict[tuple[str, str], list[Overlap]] = {}
    for overlap in found:
        groups.setdefault((overlap.task, overlap.language), []).append(overlap)
    return [_summed(key, group) for key, group in groups.items()]


def _summed(key: tuple[str, str], group: Sequence[Overlap]) -> TaskOverlap:
    touched = [overlap for overlap in group if overlap.num_found]
    worst = sorted(touched, key=lambda overlap: -overlap.share)[:5]
    return TaskOverlap(
        *key,
        num_questions=len(group),
        num_too_short=sum(not overlap.num_runs for overlap in group),
        num_found=len(touched),
        num_half_found=sum(overlap.share >= 0.5 for overlap in touched),
        examples=tuple(overlap.question_id for overlap in worst),
    )


def _parts(question: Question) -> list[str]:
    return [question.context, question.stem, *question.choices]
