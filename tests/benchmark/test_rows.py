"""Rows of CSV and Parquet, and our own columns in them."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from biomistral.benchmark.loaders import load
from biomistral.benchmark.parsing import Place
from biomistral.errors import InputError

PLACE = Place("herbs.csv", "herbs", "fr", "train")
ROWS = {"id": ["1", "2"], "stem": ["s", "t"], "answer": ["B", "A"]}


def parquet(columns) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream)
    return stream.getvalue()


def test_csv_and_parquet_give_the_same_questions():
    text = '\ufeffid,stem,A,B,C,answer\n1,s,bark,"moss\n, wet",,B\n2,t,bark,moss,reed,A\n'
    from_csv = load("csv", text.encode(), PLACE).questions
    assert from_csv[0].choices == ("bark", "moss\n, wet")
    assert (from_csv[0].gold, from_csv[1].gold) == (1, 0)
    choices = [["bark", "moss\n, wet"], ["bark", "moss", "reed"]]
    assert load("parquet", parquet({**ROWS, "choices": choices}), PLACE).questions == from_csv
    columns = {"A": ["bark", "bark"], "B": ["moss\n, wet", "moss"], "C": [None, "reed"]}
    assert load("parquet", parquet({**ROWS, **columns}), PLACE).questions == from_csv


def test_gold_of_a_csv_file_is_a_number():
    (question,) = load("csv", b"id,stem,A,B,gold\n1,s,a,b,1\n", PLACE).questions
    assert question.gold == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "id,stem,A,B,anser\n1,s,a,b,A\n",
            "record 1: unknown key 'anser'.*did you mean \"answer\"",
        ),
        ("id,stem,A,B\n1,s,a,b\n", "record 1: has none of gold and answer; exactly one is due"),
        ("id,stem,answer\n1,s,A\n", "record 1: choices is None; a list of texts"),
        ("id,stem,A,B,gold\n1,s,a,b,one\n", "gold is 'one'; an index from 0 is due"),
        ("id,stem,A,B,gold\n1,s,a,b,2\n", "gold index 2"),
        ("id,stem,A,B,C,gold\n1,s,a,,c,0\n", "record 1: choice 2 is empty"),
        ("id,stem,A,B,gold\n1,s,a,b\n", "record 1: has more or fewer columns"),
        ('id,stem,A,B,gold\n1,"s,a,b,0\n', "is no valid CSV"),
        ("id,stem,A,B,gold\n", "holds no question"),
    ],
)
def test_a_wrong_column_is_said_with_the_record(text, message):
    with pytest.raises(InputError, match=f"herbs.csv.*{message}"):
        load("csv", text.encode(), PLACE)


def test_what_is_no_parquet_is_refused():
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        load("parquet", b"id,stem", PLACE)
