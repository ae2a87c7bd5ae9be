"""Examples to learn from as token ids, in rows: answers are learned, what is before them is not.

A question is encoded as evaluation does it (``models.continuations``), so that the token that is
learned is the token that is scored, with the end-of-text token behind the answer. Several examples
share a row and are kept apart as documents are in pre-training (``collation``).

Knows nothing about models, files or losses. Shapes: B rows, T tokens in a row, N answer tokens of
a batch, K letters.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from biomistral.errors import ModelError
from biomistral.models.continuations import TextEncoder, encode_requests
from biomistral.records import Request
from biomistral.training.attention import lay_out
from biomistral.training.cross_entropy import IGNORED

NO_LETTER = -1  # fills up the letters of a token that has fewer than others, or none


@dataclass(frozen=True, slots=True)
class Lesson:
    """One example: token ids, which of them are learned, and the letters that compete for one."""

    ids: tuple[int, ...]
    is_answer: tuple[bool, ...]  # one per id; never the first
    letters: tuple[int, ...] = ()  # ids of all choices' letters, if the answer is one
    letter_place: int = 0  # index of the letter among ids
    source: str = ""  # where it is from, for people


@dataclass(frozen=True, slots=True)
class Preference:
    """A prompt, and two answers to it of which the first is better; all as token ids."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    source: str = ""  # where it is from, for people

    @property
    def num_tokens(self) -> int:
        """Tokens of prompt and longer answer."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))

    @property
    def num_read_tokens(self) -> int:
        """Tokens of both answers, each behind the prompt."""
        return 2 * len(self.prompt) + len(self.chosen) + len(self.rejected)


def lessons_of(tokenizer: Any, requests: Sequence[Request]) -> list[Lesson]:
    """Encode questions with their right answers. Raises ``ModelError`` as ``encode_requests``."""
    eos = end_of_text(tokenizer)
    lessons = []
    for request, encoded in zip(
        requests, encode_requests(TextEncoder(tokenizer), requests), strict=True
    ):
        tail = encoded.tails[request.gold]
        ids = (*encoded.trunk, *tail, eos)
        learned = [False] * len(encoded.trunk) + [True] * (len(tail) + 1)
        letters: tuple[int, ...] = ()
        if request.scoring != "cloze":
            # Where a letter joins the prompt's end, a tail is longer, and its last token decides.
            letters = tuple(other[-1] for other in encoded.tails)
            learned[len(encoded.trunk) : len(ids) - 2] = [False] * (len(tail) - 1)
        letter_place = len(ids) - 2 if letters else 0
        lessons.append(Lesson(ids, tuple(learned), letters, letter_place, _source(request)))
    return lessons


def preferences_of(
    tokenizer: Any, requests: Sequence[Request], *, rejections: int, seed: int
) -> list[Preference]:
    """Pair the right answer of each question with others, drawn for each question by ``seed``."""
    eos = end_of_text(tokenizer)
    pairs = []
    for request, encoded in zip(
        requests, encode_requests(TextEncoder(tokenizer), requests), strict=True
    ):
        right = encoded.tails[request.gold]
        wrong = [tail for tail in encoded.tails if tail != right]
        draw = torch.Generator().manual_seed(_number(request, seed))
        drawn = torch.randperm(len(wrong), generator=draw).tolist()[:rejections]
        pairs += [
            Preference(tuple(encoded.trunk), (*right, eos), (*wrong[place], eos), _source(request))
            for place in drawn
        ]
    return pairs


def _source(request: Request) -> str:
    return f"{request.task}/{request.language}/{request.question_id}"


def _number(request: Request, seed: int) -> int:
    key = f"{seed}\0{request.task}\0{request.language}\0{request.question_id}"
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big")


def end_of_text(tokenizer: Any) -> int:
    """The id behind every answer. Raises ``ModelError`` if the tokenizer has none."""
    if tokenizer.eos_token_id is None:
        raise ModelError(
            "training: the model's tokenizer has no end-of-text token, which every answer ends in; "
            "name one in its tokenizer_config.json (eos_token)"
        )
    return int(tokenizer.eos_token_id)


# --- rows -----------------------------------------------------------------------------------------


def pack(lessons: Sequence[Lesson], row_length: int) -> list[list[Lesson]]:
    """Lay lessons into rows by best fit, longest first, ties in order; none is cut.

    None may be longer than a row.
    """
    rows: list[list[Lesson]] = []
    open_rows: list[tuple[int, int]] = []  # room left and row, sorted
    for lesson in sorted(lessons, key=lambda lesson: -len(lesson.ids)):
        size = len(lesson.ids)
        assert size <= row_length, "a lesson is longer than a row"
        place = bisect_left(open_rows, (size, -1))
        room, row = open_rows.pop(place) if place < len(open_rows) else (row_length, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(lesson)
        if room > size:
            insort(open_rows, (room - size, row))
    return rows


def collate_lessons(rows: Sequence[Sequence[Lesson]]) -> dict[str, Any]:
    """Stack rows of lessons, filled up to the longest row of the batch; a row may have none.

    ``input_ids``, ``labels`` and ``position_ids`` are (B, T); ``documents`` says where examples lie
    (``attention``); ``letters`` is (N, K) in the order of the labels that are learned, with
    ``NO_LETTER`` where there is none.
    """
    width = max(1, *(sum(len(lesson.ids) for lesson in row) for row in rows))
    input_ids = torch.zeros(len(rows), width, dtype=torch.int64)
    labels = torch.full_like(input_ids, IGNORED)
    positions = torch.zeros_like(input_ids)
    letters: list[tuple[int, ...]] = []
    lengths: list[int] = []
    for index, row in enumerate(rows):
        start = 0
        for lesson in row:
            part = slice(start, start + len(lesson.ids))
            ids = torch.tensor(lesson.ids)
            input_ids[index, part] = ids
            labels[index, part] = ids.where(torch.tensor(lesson.is_answer), IGNORED)
            positions[index, part] = torch.arange(len(ids))
            letters += [
                lesson.letters if lesson.letters and place == lesson.letter_place else ()
                for place, learned in enumerate(lesson.is_answer)
                if learned
            ]
            start += len(ids)
        positions[index, start:] = torch.arange(width - start)
        lengths += [len(lesson.ids) for lesson in row] + [width - start] * (start < width)
    return {
        "input_ids": input_ids,
        "labels": labels,
        "position_ids": positions,
        "documents": lay_out(lengths),
        "letters": _table(letters),
    }


def _table(letters: Sequence[tuple[int, ...]]) -> Tensor:
    """Tuples of ids as one tensor, filled up.  # (N, K), K at least 1."""
    width = max(1, *map(len, letters)) if letters else 1
    table = torch.full((len(letters), width), NO_LETTER)
    for index, ids in enumerate(letters):
        table[index, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
    return table
