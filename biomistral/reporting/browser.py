"""The question browser's data: every question with what each model gave to it, ready to filter.

Pure: from columns of predictions to columns of small whole numbers, and to the text of the scripts
that carry them. A page opened from a disk may not read files, but it may run scripts beside it: so
the data are scripts that call one function. ``index.js`` has what the filters need, four bytes a
question and track at most; texts and probabilities lie in parts of ``PART_ROWS`` questions that are
loaded when one of them is shown.

A *track* is a model in one scoring with one number of shots. Knows nothing about pages and paths.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from biomistral.languages import LANGUAGES
from biomistral.records import UNSAID, Task

PART_ROWS = 256
ABSENT = 255  # the question was not put to this track
NO_ANSWER = 254  # words that named no choice

Texts = Literal["open", "all", "none"]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]

# Licences that let anybody pass a text on; as in the corpus, unclear is no.
_OPEN = re.compile(
    r"(CC0|CC[ -]BY([ -](SA|ND))?|MIT|Apache|BSD|ODC-BY|PDDL|Unlicense|public domain)"
    r"([ -](\d\.\d|\d-Clause))*",
    re.IGNORECASE,
)


class Track(NamedTuple):
    """Who answered, and how it was asked."""

    model: str
    scoring: str
    shots: int


@dataclass(frozen=True)
class TrackAnswers:
    """What one track gave to each of R questions with at most C choices; means are over seeds."""

    choice: Bytes  # (R,) most probable by the mean; the first of equals; ABSENT, NO_ANSWER
    sure_percent: Bytes  # (R,) its mean probability, rounded; 0 where there is no answer
    num_right: Bytes  # (R,) seeds whose own answer is right
    num_asked: Bytes  # (R,) seeds
    probabilities: Floats  # (R, C) renormalised over the choices; 0 beyond a question's choices


@dataclass(frozen=True)
class Board:
    """All questions that were answered, and all answers. Texts that may not be shown are None."""

    tasks: tuple[Task, ...]
    languages: tuple[str, ...]
    task_index: Ints  # (R,)
    language_index: Ints  # (R,)
    gold: Ints  # (R,)
    num_choices: Ints  # (R,)
    ids: Sequence[str]
    texts: Sequence[Mapping[str, Any] | None]  # stem, choices, context
    tracks: Mapping[Track, TrackAnswers]

    @property
    def num_parts(self) -> int:
        """How many scripts the texts and probabilities are spread over."""
        return -(-len(self.ids) // PART_ROWS)


def may_show(licence: str, texts: Texts) -> bool:
    """Whether questions under a licence may stand in a report that is passed on."""
    return texts == "all" or (texts == "open" and _OPEN.fullmatch(licence.strip()) is not None)


def answers_of(rows: Ints, logprobs: Floats, gold: Ints) -> TrackAnswers:
    """Bring the answers of one track together: (N,) rows of the board, (N, C), and (R,) to R rows.

    ``logprobs`` are padded with minus infinity beyond a question's choices. Answers that say nothing
    (all ``UNSAID``) have no part in the mean, and are wrong.
    """
    num_rows, num_choices = len(gold), logprobs.shape[1]
    top = logprobs.max(axis=1)
    said = top > UNSAID
    weights = np.exp(logprobs - top[:, None])
    shares = weights / weights.sum(axis=1, keepdims=True) * said[:, None]
    places = rows[:, None] * num_choices + np.arange(num_choices)
    sums = np.bincount(places.ravel(), shares.ravel(), num_rows * num_choices)
    asked = np.bincount(rows, minlength=num_rows)
    spoken = np.bincount(rows, said, num_rows)
    means = sums.reshape(num_rows, num_choices) / np.maximum(spoken, 1)[:, None]
    right = (logprobs.argmax(axis=1) == gold[rows]) & said
    choice = np.where(spoken > 0, means.argmax(axis=1), NO_ANSWER)
    return TrackAnswers(
        choice=np.where(asked > 0, choice, ABSENT).astype(np.uint8),
        sure_percent=np.rint(100 * means.max(axis=1)).astype(np.uint8),
        num_right=np.minimum(np.bincount(rows, right, num_rows), 255).astype(np.uint8),
        num_asked=np.minimum(asked, 255).astype(np.uint8),
        probabilities=means,
    )


def index_script(board: Board, title: str) -> str:
    """Everything that filters and counts need, as one script."""
    tracks = [
        {
            **track._asdict(),
            "choice": _packed(answers.choice),
            "sure": _packed(answers.sure_percent),
            "right": _packed(answers.num_right),
            "asked": _packed(answers.num_asked),
        }
        for track, answers in board.tracks.items()
    ]
    value = {
        "title": title,
        "rows": len(board.ids),
        "partRows": PART_ROWS,
        "tasks": [
            {"name": task.name, "title": task.title, "group": task.group, "licence": task.licence}
            for task in board.tasks
        ],
        "languages": [_language(code) for code in board.languages],
        "task": _packed(board.task_index),
        "language": _packed(board.language_index),
        "gold": _packed(board.gold),
        "tracks": tracks,
    }
    return _script("index", value)


def part_script(board: Board, part: int) -> str:
    """Texts and probabilities (in thousandths) of the questions of one part."""
    rows = range(part * PART_ROWS, min((part + 1) * PART_ROWS, len(board.ids)))
    thousandths = {
        track: np.rint(1000 * answers.probabilities[rows.start : rows.stop]).astype(int).tolist()
        for track, answers in board.tracks.items()
    }
    value = [
        {
            "id": board.ids[row],
            "n": (n := int(board.num_choices[row])),
            **(board.texts[row] or {}),
            "p": [
                thousandths[track][row - rows.start][:n]
                if answers.choice[row] < NO_ANSWER
                else None
                for track, answers in board.tracks.items()
            ],
        }
        for row in rows
    ]
    return _script("part", part, value)


def _packed(values: npt.NDArray[Any]) -> dict[str, Any]:
    """Small whole numbers as base64 of bytes, or of pairs of bytes, or as one number for all."""
    if values.size and (values == values[0]).all():
        return {"all": int(values[0])}
    width = 1 if values.max(initial=0) < 256 else 2
    raw = values.astype("u1" if width == 1 else "<u2").tobytes()
    return {"width": width, "base64": base64.b64encode(raw).decode("ascii")}


def _language(code: str) -> dict[str, str]:
    known = LANGUAGES.get(code)
    return {
        "code": code,
        "name": known.name if known else code,
        "direction": known.direction if known else "auto",
    }


def _script(name: str, *arguments: Any) -> str:
    parts = (
        json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        for value in arguments
    )
    return f"biomistral.{name}({','.join(parts)});\n"
