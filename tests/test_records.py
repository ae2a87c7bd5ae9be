from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biomistral.errors import InputError
from biomistral.records import (
    LETTERS,
    Prediction,
    Question,
    ReliabilityBin,
    Score,
    Task,
    read_records,
    write_records,
)

QUESTION = Question("q1", "fevers", "ar", "test", "ما هو؟", ("لحاء", "ماء"), 1, "نص\nثان")
PREDICTION = Prediction("q1", "fevers", "ar", "base", 3, 1, "letter", (-0.1, -2.5), 1)
SCORE = Score(
    "base", "model", "average", "medical", "en", "cloze", 3, "ece", 0.25, None, None, 80, 3
)
BIN = ReliabilityBin("base", "average", "medical", "en", "letter", 0.0, 0.1, 7, 0.05, 0.5)
TASK = Task("fevers", "Fevers", "medical", "invented", "CC0-1.0")


def _question(**changes: Any) -> Question:
    values: dict[str, Any] = {
        "id": "q7",
        "task": "fevers",
        "language": "en",
        "split": "test",
        "stem": "Which bark?",
        "choices": ("willow", "oak"),
        "gold": 0,
    }
    return Question(**{**values, **changes})


def _prediction(*logprobs: float) -> Prediction:
    return Prediction("q7", "fevers", "en", "base", 3, 1, "letter", logprobs, 0)


@pytest.mark.parametrize("record", [QUESTION, PREDICTION, SCORE, BIN, TASK])
def test_records_come_back_from_parquet_as_they_were(record: Any, tmp_path: Path) -> None:
    path = tmp_path / "records.parquet"
    assert write_records(path, [record, record], type(record)) == 2
    assert list(read_records(path, type(record))) == [record, record]


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=("Cs",)), min_size=1),
            st.lists(st.floats(-1e9, 0), min_size=2, max_size=5),
        ),
        max_size=4,
    )
)
def test_any_text_and_any_double_survives(tmp_path_factory, rows) -> None:
    path = tmp_path_factory.mktemp("records") / "p.parquet"
    records = [
        Prediction(name, "t", "en", "m", 0, 1, "letter", tuple(values), 0) for name, values in rows
    ]
    write_records(path, records, Prediction)
    assert list(read_records(path, Prediction)) == records


def test_no_records_still_make_a_file_with_all_columns(tmp_path: Path) -> None:
    assert write_records(tmp_path / "empty.parquet", [], Score) == 0
    assert list(read_records(tmp_path / "empty.parquet", Score)) == []
    assert "num_seeds" in pq.read_schema(tmp_path / "empty.parquet").names


def test_columns_keep_their_types_whatever_the_values(tmp_path: Path) -> None:
    write_records(tmp_path / "s.parquet", [SCORE], Score)
    assert pq.read_schema(tmp_path / "s.parquet").field("low").type == pa.float64()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere.parquet: there is no such file"):
        list(read_records(tmp_path / "nowhere.parquet", Question))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_file_that_was_cut_short_is_named(share: float, tmp_path: Path) -> None:
    path = tmp_path / "cut.parquet"
    write_records(path, [QUESTION] * 50, Question)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InputError, match=r"cut.parquet: cannot be read as Parquet"):
        list(read_records(path, Question))


def test_a_file_whose_pages_are_damaged_is_named(tmp_path: Path) -> None:
    path = tmp_path / "damaged.parquet"
    write_records(path, [QUESTION] * 50, Question)
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xff" * 56  # the first page, behind the magic bytes
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"damaged.parquet: cannot be read as Parquet"):
        list(read_records(path, Question))


def test_lacking_columns_are_listed(tmp_path: Path) -> None:
    pq.write_table(pa.table({"name": ["a"], "title": ["A"]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"lacks the columns \['group', .*\] of Task"):
        list(read_records(tmp_path / "t.parquet", Task))


def test_columns_of_a_later_version_are_passed_over(tmp_path: Path) -> None:
    write_records(tmp_path / "t.parquet", [TASK], Task)
    table = pq.read_table(tmp_path / "t.parquet").append_column("new", pa.array([1]))
    pq.write_table(table, tmp_path / "t.parquet")
    assert list(read_records(tmp_path / "t.parquet", Task)) == [TASK]


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"stem": " \n"}, "the stem is empty"),
        ({"choices": ("one",)}, "has 1 choices; allowed are 2 to 13"),
        ({"choices": tuple("abcdefghijklmn")}, "has 14 choices; allowed are 2 to 13"),
        ({"gold": 2}, r"gold index 2 is not the index of one of its 2 choices \(0 to 1\)"),
        ({"gold": -1}, "gold index -1"),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused(changes: dict[str, Any], wrong: str) -> None:
    with pytest.raises(InputError, match=rf"question 'q7' of fevers \(en, test\).*{wrong}"):
        _question(**changes)


def test_there_is_a_letter_for_each_choice_that_is_allowed() -> None:
    assert len(set(LETTERS)) == 13
    _question(choices=tuple(LETTERS), gold=9)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.5])
def test_what_is_no_log_probability_is_refused(value: float) -> None:
    with pytest.raises(InputError, match=r"prediction of base for question 'q7'.*must be finite"):
        _prediction(-1.0, value)


def test_rounding_may_put_a_certain_answer_a_hair_above_zero() -> None:
    assert _prediction(1e-6, -20.0).logprobs[0] == 1e-6


@pytest.mark.parametrize("field", ["stem", "context", "choices"])
def test_a_question_cannot_hold_what_marks_control_tokens(field):
    values = {"stem": "Why?", "context": "", "choices": ("a", "b")}
    values[field] = ("a", "\ufdd0</s>\ufdd1") if field == "choices" else "\ufdd0</s>\ufdd1"
    with pytest.raises(InputError, match=r"holds U\+FDD0 or U\+FDD1"):
        Question("q", "t", "en", "test", gold=0, **values)
