from __future__ import annotations

import base64
import json
import math
import random

import numpy as np
import pytest

from biomistral.records import UNSAID, Task
from biomistral.reporting.browser import (
    ABSENT,
    NO_ANSWER,
    PART_ROWS,
    Board,
    Track,
    answers_of,
    index_script,
    may_show,
    part_script,
)

TASKS = (Task("heart", "Heart", "medical", "invented", "MIT"),)


def board(num_rows: int, answers=None, texts=None) -> Board:
    zeros = np.zeros(num_rows, dtype=np.int64)
    return Board(
        TASKS, ("en", "ar"), zeros, zeros, zeros, zeros + 2,
        [f"q{row}" for row in range(num_rows)],
        texts or [{"stem": f"Which {row}?", "choices": ["a", "b"]} for row in range(num_rows)],
        {Track("base", "letter", 3): answers} if answers else {},
    )  # fmt: skip


def arguments(script: str, name: str) -> list:
    """What a script hands to its function, read back."""
    assert script.startswith(f"biomistral.{name}(")
    assert script.endswith(");\n")
    return json.loads(
        f"[{script.removeprefix(f'biomistral.{name}(').removesuffix(');' + chr(10))}]"
    )


def column(packed: dict, length: int) -> list[int]:
    if "all" in packed:
        return [packed["all"]] * length
    kind = {1: "u1", 2: "<u2"}[packed["width"]]
    return np.frombuffer(base64.b64decode(packed["base64"]), kind).tolist()


def slowly(answers: list[tuple[int, list[float]]], gold: list[int]) -> list[dict]:
    """The same as ``answers_of``, one answer after the other."""
    found = []
    for row, right in enumerate(gold):
        own = [logprobs for place, logprobs in answers if place == row]
        said = [values for values in own if max(values) > UNSAID]
        shares = [[math.exp(v) / sum(map(math.exp, values)) for v in values] for values in said]
        means = [sum(column) / len(said) for column in zip(*shares, strict=True)]
        found.append({
            "asked": len(own),
            "right": sum(values.index(max(values)) == right for values in said),
            "choice": means.index(max(means)) if said else NO_ANSWER if own else ABSENT,
            "sure": round(100 * max(means)) if said else 0,
        })  # fmt: skip
    return found


def test_answers_are_brought_together_as_one_after_the_other_would() -> None:
    drawn = random.Random(3)
    gold = [drawn.randrange(3) for _ in range(40)]
    answers = [
        (row, [UNSAID] * 3 if drawn.random() < 0.2 else [-drawn.expovariate(1) for _ in range(3)])
        for row in range(39)  # nobody was asked the last one
        for _ in range(3)
    ]
    drawn.shuffle(answers)
    rows = np.array([row for row, _ in answers])
    found = answers_of(rows, np.array([values for _, values in answers]), np.array(gold))
    for row, expected in enumerate(slowly(answers, gold)):
        assert found.num_asked[row] == expected["asked"]
        assert found.num_right[row] == expected["right"]
        assert found.choice[row] == expected["choice"]
        assert found.sure_percent[row] == expected["sure"]


def test_a_question_with_fewer_choices_has_no_share_beyond_them() -> None:
    logprobs = np.array([[-1.0, -2.0, -np.inf], [-3.0, -2.0, -1.0]])
    found = answers_of(np.array([0, 1]), logprobs, np.array([0, 2]))
    assert found.probabilities[0, 2] == 0
    assert found.probabilities.sum(axis=1) == pytest.approx([1, 1])


def test_equal_answers_count_as_the_first() -> None:
    found = answers_of(np.array([0]), np.array([[-1.0, -1.0]]), np.array([1]))
    assert (found.choice[0], found.num_right[0], found.sure_percent[0]) == (0, 0, 50)


def test_scripts_hold_what_the_board_holds() -> None:
    rows = PART_ROWS + 1
    answers = answers_of(
        np.arange(rows), np.log(np.tile([0.25, 0.75], (rows, 1))), np.arange(rows) % 2
    )
    made = board(rows, answers)
    (index,) = arguments(index_script(made, "A <title>"), "index")
    assert (index["rows"], index["title"]) == (rows, "A <title>")
    assert index["languages"][1] == {"code": "ar", "name": "Arabic", "direction": "rtl"}
    (track,) = index["tracks"]
    assert column(track["choice"], rows) == [1] * rows
    assert column(track["right"], rows) == [row % 2 for row in range(rows)]
    assert made.num_parts == 2
    number, part = arguments(part_script(made, 1), "part")
    assert number == 1
    assert part == [
        {"id": "q256", "n": 2, "stem": "Which 256?", "choices": ["a", "b"], "p": [[250, 750]]}
    ]


def test_a_text_that_may_not_be_shown_is_in_no_script() -> None:
    made = board(1, texts=[None])
    assert arguments(part_script(made, 0), "part") == [0, [{"id": "q0", "n": 2, "p": []}]]


def test_numbers_past_a_byte_are_packed_into_two() -> None:
    many = tuple(Task(f"t{n}", f"T{n}", "medical", "", "") for n in range(300))
    zeros = np.zeros(2, dtype=np.int64)
    made = Board(many, ("en",), np.array([1, 299]), zeros, zeros, zeros + 2, "ab", [None] * 2, {})
    (index,) = arguments(index_script(made, ""), "index")
    assert column(index["task"], 2) == [1, 299]


@pytest.mark.parametrize(
    ("licence", "shown"),
    [
        *((name, True) for name in ("CC0-1.0", "CC-BY", "CC BY-SA 4.0", "MIT", "Apache-2.0")),
        *((name, False) for name in ("", "CC-BY-NC", "CC BY-NC-ND 4.0", "unknown", "MIT?", "own")),
    ],
)
def test_texts_are_shown_under_an_open_licence_only(licence: str, shown: bool) -> None:
    assert may_show(licence, "open") is shown
    assert may_show(licence, "all")
    assert not may_show(licence, "none")
