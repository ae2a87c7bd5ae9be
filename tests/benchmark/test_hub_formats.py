"""Columns of data sets of the hub, in small Parquet files."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from biomistral.benchmark.loaders import load
from biomistral.benchmark.parsing import Place
from biomistral.errors import InputError

PLACE = Place("part.parquet", "herbs", "en", "test")


def read(file_format, *rows):
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), stream)
    return load(file_format, stream.getvalue(), PLACE).questions


MMLU = {"question": "Which?", "subject": "anatomy", "choices": ["a", "b", "c", "d"], "answer": 2}
MEDMCQA = {"id": "u", "question": "Which?", "opa": "a", "opb": "b", "opc": "c", "opd": "d"}
PUBMED = {
    "pubid": 77,
    "question": "Does it?",
    "context": {"contexts": ["Aim.", "So."], "labels": ["A", "B"]},
    "final_decision": "maybe",
}
OPEN = {
    "id": "z",
    "data": {
        "Question": "Does it?",
        "Options": {"A": "yes", "B": "no", "C": "maybe", "D": None},
        "Correct Option": "B",
        "Context": ["Aim.", "So."],
    },
}


def test_mmlu_answers_are_indices():
    (question,) = read("mmlu_hub", MMLU)
    assert (question.id, question.gold, question.choices) == ("1", 2, ("a", "b", "c", "d"))


def test_medmcqa_counts_from_zero_here():
    (question,) = read("medmcqa_hub", {**MEDMCQA, "cop": 0})
    assert (question.id, question.gold) == ("u", 0)


def test_pubmedqa_joins_its_passages():
    (question,) = read("pubmedqa_hub", PUBMED)
    assert (question.id, question.context, question.gold) == ("77", "Aim. So.", 2)


def test_openlifescience_has_options_by_letter():
    (question,) = read("openlifescience", OPEN)
    assert (question.choices, question.gold) == (("yes", "no", "maybe"), 1)
    assert question.context == "Aim. So."


@pytest.mark.parametrize(
    ("file_format", "row", "message"),
    [
        ("mmlu_hub", {**MMLU, "answer": 4}, "record 1: answer is 4; allowed are 0 to 3"),
        ("mmlu_hub", {"question": "Which?", "answer": 1}, "choices is None"),
        ("medmcqa_hub", {**MEDMCQA, "cop": -1}, "record 1: cop is -1; allowed are 0 to 3"),
        ("pubmedqa_hub", {**PUBMED, "final_decision": "so"}, "final_decision is 'so'"),
        ("openlifescience", {"id": "z"}, "record 1: is no JSON object"),
    ],
)
def test_a_wrong_row_is_named(file_format, row, message):
    with pytest.raises(InputError, match=message):
        read(file_format, row)
