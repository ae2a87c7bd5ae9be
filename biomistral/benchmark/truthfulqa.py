"""TruthfulQA (arXiv 2109.07958) with one true answer: the best one among all that are false.

The published file lists answers, not choices. As in its own single-true-answer task, the best
answer is one choice and each false answer another. They would always start with the right one, so
a hash of the question's number puts them in an order, the same in every run. Ids are record numbers
from 1; the four categories of the BioMistral paper are tasks of their own. Knows no folders.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from biomistral.benchmark.parsing import (
    JsonObject,
    Loaded,
    Place,
    Spot,
    question_of,
    text_of,
    texts_of,
)
from biomistral.benchmark.rows import csv_rows, parquet_rows
from biomistral.benchmark.tasks import TRUTHFULQA

_COLUMNS = {"category": "Category", "question": "Question", "best_answer": "Best Answer"}


def load_csv(data: bytes, place: Place) -> Loaded:
    """Read TruthfulQA.csv: answers are parted by semicolons."""

    def records() -> Iterable[tuple[Spot, JsonObject]]:
        for spot, row in csv_rows(data, place):
            record = {key: text_of(row, column, spot) for key, column in _COLUMNS.items()}
            false = text_of(row, "Incorrect Answers", spot).split(";")
            yield spot, {**record, "incorrect_answers": false}

    return _load(records(), place)


def load_hub(data: bytes, place: Place) -> Loaded:
    """Read the ``generation`` part of the data set on the Hugging Face hub."""
    return _load(parquet_rows(data, place), place)


def _load(records: Iterable[tuple[Spot, JsonObject]], place: Place) -> Loaded:
    category = TRUTHFULQA[place.task]
    loaded = Loaded()
    for spot, record in records:
        if category and text_of(record, "category", spot) != category:
            continue
        best = text_of(record, "best_answer", spot).strip()
        false = texts_of(record.get("incorrect_answers"), "incorrect_answers", spot)
        stripped = [text.strip() for text in false if text.strip()]
        choices = _in_drawn_order(list(dict.fromkeys([best, *stripped])), spot.number)
        stem, gold = text_of(record, "question", spot), choices.index(best)
        loaded.questions.append(question_of(spot, str(spot.number), stem, choices, gold))
    return loaded


def _in_drawn_order(choices: Sequence[str], number: int) -> list[str]:
    def rank(choice: str) -> bytes:
        return hashlib.sha256(f"truthfulqa\0{number}\0{choice}".encode()).digest()

    return sorted(choices, key=rank)
