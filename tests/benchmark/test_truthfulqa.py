"""TruthfulQA: one true answer among the false ones, in an order drawn once."""

from __future__ import annotations

import io
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from biomistral.benchmark.loaders import load
from biomistral.benchmark.parsing import Place
from biomistral.errors import InputError

TEXT = (
    "\ufeffType,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source\n"
    "A,Health,Does bark cure?,No,No; Never,Yes; Always ;No;,x\n"
    "A,Law,Is moss legal?,Yes,Yes,No; In May only,x\n"
)


def read(task, text=TEXT):
    place = Place("t.csv", task, "en", "test")
    return load("truthfulqa", text.encode(), place).questions


def test_choices_are_the_best_answer_and_each_false_one_once():
    first, second = read("truthfulqa")
    assert sorted(first.choices) == ["Always", "No", "Yes"]
    assert first.choices[first.gold] == "No"
    assert (first.id, second.id, second.choices[second.gold]) == ("1", "2", "Yes")


def test_a_category_keeps_the_numbers_of_the_file():
    assert [q.id for q in read("truthfulqa_health")] == ["1"]
    with pytest.raises(InputError, match="holds no question"):
        read("truthfulqa_science")


def test_the_data_set_of_the_hub_gives_the_same_questions():
    rows = {
        "category": ["Health", "Law"],
        "question": ["Does bark cure?", "Is moss legal?"],
        "best_answer": ["No", "Yes"],
        "incorrect_answers": [["Yes", "Always"], ["No", "In May only"]],
    }
    stream = io.BytesIO()
    pq.write_table(pa.table(rows), stream)
    place = Place("t.csv", "truthfulqa", "en", "test")
    assert load("truthfulqa_hub", stream.getvalue(), place).questions == read("truthfulqa")


def test_a_missing_column_is_named():
    with pytest.raises(InputError, match="record 1: has no Best Answer"):
        read("truthfulqa", TEXT.replace("Best Answer", "Best"))


def test_the_right_answer_of_the_published_file_stands_everywhere(real_data):
    data = (real_data / "truthfulqa/TruthfulQA.csv").read_bytes()
    place = Place("t.csv", "truthfulqa", "en", "test")
    questions = load("truthfulqa", data, place).questions
    assert len(questions) == 817
    assert max(len(q.choices) for q in questions) == 13
    four = Counter(q.gold for q in questions if len(q.choices) == 4)
    # Binomial(207, 1/4): mean 52, deviation 6; the order is fixed, so this holds always or never.
    assert all(30 < four[place] < 75 for place in range(4))
