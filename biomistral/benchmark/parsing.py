"""Parts that the file formats share: records of JSON files, and checked values in them.

Every error names the file and the record (counted from 1). Knows no format.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from biomistral.errors import InputError
from biomistral.records import LETTERS, Question, Split

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Which questions a file holds, and the name errors give it."""

    file: str
    task: str
    language: str
    split: Split


@dataclass(slots=True)
class Loaded:
    """The questions of one file, in its order, and how many records were left out, by reason."""

    questions: list[Question] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    examples: list[Question] = field(default_factory=list)  # published with them, see stored_shots


@dataclass(frozen=True, slots=True)
class Spot:
    """One record of a file; ``number`` counts from 1."""

    place: Place
    number: int

    def wrong(self, problem: str) -> InputError:
        """Make the error that says what is wrong with this record."""
        return InputError(f"{self.place.file}, record {self.number}: {problem}")


# --- files ----------------------------------------------------------------------------------------


def decoded(data: bytes, place: Place) -> str:
    """Decode UTF-8, with or without a byte order mark."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{place.file}: is not UTF-8 at byte {error.start}; convert it to UTF-8"
        ) from None


def json_lines(text: str, place: Place) -> Iterator[tuple[Spot, JsonObject]]:
    """Yield the object of each line; the record's number is the line's. Empty lines are passed over."""
    # Not splitlines: it would also break at U+2028, which JSON allows inside texts.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            spot = Spot(place, number)
            yield spot, as_object(_parsed(line, f"{place.file}, record {number}"), spot)


def json_list(text: str, place: Place) -> Iterator[tuple[Spot, JsonObject]]:
    """Yield the objects of a file that is one JSON list."""
    records = _parsed(text, place.file)
    if not isinstance(records, list):
        raise InputError(f"{place.file}: is no JSON list of records")
    for number, record in enumerate(records, start=1):
        spot = Spot(place, number)
        yield spot, as_object(record, spot)


def json_by_key(text: str, place: Place) -> Iterator[tuple[Spot, str, JsonObject]]:
    """Yield key and object of a file that is one JSON object of records."""
    records = _parsed(text, place.file)
    if not isinstance(records, dict):
        raise InputError(f"{place.file}: is no JSON object of records by id")
    for number, (key, record) in enumerate(records.items(), start=1):
        spot = Spot(place, number)
        yield spot, key, as_object(record, spot)


def as_object(value: Any, spot: Spot) -> JsonObject:
    """Return a JSON object, or say that it is none."""
    if not isinstance(value, dict):
        raise spot.wrong("is no JSON object")
    return value


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: is no valid JSON ({error})") from None


# --- values ---------------------------------------------------------------------------------------


def text_of(record: JsonObject, key: str, spot: Spot) -> str:
    """Text under a key; an id may also be a whole number."""
    value = record.get(key)
    if key == "id" and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        problem = f"{key} is {value!r:.80}" if key in record else f"has no {key}"
        raise spot.wrong(f"{problem}; a text is due there")
    return value


def texts_of(value: Any, key: str, spot: Spot) -> list[str]:
    """Return a list of texts, or say that it is none."""
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise spot.wrong(f"{key} is {value!r:.80}; a list of texts is due")
    return value


def texts_by_letter(value: Any, key: str, letters: str, spot: Spot) -> list[str]:
    """Texts of ``{letter: text}`` in the order of ``letters``, whatever the order in the file."""
    texts = as_object(value, spot)
    if not letters.startswith("".join(sorted(texts))):
        raise spot.wrong(f"{key} has the letters {sorted(texts)}; allowed are {letters[:2]}... on")
    return texts_of([texts[letter] for letter in sorted(texts)], key, spot)


def key_of(record: JsonObject, keys: Sequence[str], spot: Spot) -> str:
    """Return the one key of ``keys`` that the record has."""
    present = [key for key in keys if key in record]
    if len(present) != 1:
        raise spot.wrong(
            f"has {' and '.join(present) or 'none'} of {' and '.join(keys)}; exactly one is due"
        )
    return present[0]


def index_of_letter(letter: str, num_choices: int, spot: Spot) -> int:
    """Index of the answer's letter, A being 0."""
    allowed = LETTERS[:num_choices]
    if len(letter) != 1 or letter not in allowed:
        raise spot.wrong(f"the answer is {letter!r}; allowed are the letters {', '.join(allowed)}")
    return allowed.index(letter)


def question_of(
    spot: Spot, question_id: str, stem: str, choices: Sequence[str], gold: int, context: str = ""
) -> Question:
    """Make a question, its texts cut of outer blanks; say which record it was if it is not valid."""
    stripped = tuple(choice.strip() for choice in choices)
    if "" in stripped:
        raise spot.wrong(f"choice {stripped.index('') + 1} is empty")
    if any(
        "\ud800" <= character <= "\udfff"
        for character in "".join((question_id, stem, context, *choices))
    ):
        raise spot.wrong("holds half a character (a lone surrogate); the file is damaged")
    place = spot.place
    try:
        return Question(
            id=question_id,
            task=place.task,
            language=place.language,
            split=place.split,
            stem=stem.strip(),
            choices=stripped,
            gold=gold,
            context=context.strip(),
        )
    except InputError as error:
        raise spot.wrong(str(error)) from None
