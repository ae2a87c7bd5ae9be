"""Runs of words, against a slow second way."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biomistral.errors import InputError
from biomistral.ngrams import Runs, are_in, read_runs, write_runs

WORDS = st.lists(st.sampled_from(["bark", "moss", "reed", "fern"]), max_size=30)


@given(first=WORDS, second=WORDS, width=st.integers(1, 5))
def test_runs_are_equal_where_the_words_are(first, second, width):
    def slow(words):
        return [tuple(words[i : i + width]) for i in range(len(words) - width + 1)]

    runs = Runs(width)
    one, other = runs.of(" ".join(first)), runs.of(" ".join(second))
    expected = [[a == b for b in slow(second)] for a in slow(first)]
    assert [[bool(a == b) for b in other] for a in one] == expected
    known = np.unique(other)
    assert are_in(one, known).tolist() == [run in slow(second) for run in slow(first)]


@pytest.mark.parametrize(
    "text", ["BARK, moss; (reed)", "bark\n\tmoss—reed", "ＢＡＲＫ moss_reed", "Bark moss reed."]
)
def test_case_punctuation_and_forms_do_not_count(text):
    assert Runs(3).of(text).tolist() == Runs(3).of("bark moss reed").tolist()


def test_the_words_that_are_remembered_are_bounded_and_change_nothing(monkeypatch):
    text = "bark moss reed fern bark moss reed"
    expected = Runs(2).of(text).tolist()
    monkeypatch.setattr("biomistral.ngrams._MOST_WORDS_KNOWN", 2)
    runs = Runs(2)
    assert runs.of(text).tolist() == expected
    assert len(runs._numbers) <= 2


def test_order_counts_and_a_shorter_text_has_no_run():
    runs = Runs(3)
    assert runs.of("bark moss reed") != runs.of("reed moss bark")
    assert len(runs.of("bark moss")) == len(runs.of("")) == 0


def test_each_chinese_character_is_a_word():
    assert len(Runs(3).of("河谷热用树皮治疗")) == 6
    assert Runs(3).of("谷热用")[0] in Runs(3).of("河谷热用树皮")


def test_files_keep_each_run_once_and_the_width(tmp_path):
    runs = Runs(2)
    path = tmp_path / "runs.parquet"
    assert write_runs(path, [runs.of("a b c"), runs.of("b c d")], 2) == 3
    known, width = read_runs(path)
    assert width == 2
    assert known.tolist() == sorted(
        {*runs.of("a b c").tolist(), *runs.of("c d").tolist(), *runs.of("b c").tolist()}
    )
    assert write_runs(path, [], 13) == 0
    assert are_in(runs.of("a b"), read_runs(path)[0]).tolist() == [False]


def test_another_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="is no file of word runs"):
        read_runs(tmp_path / "none.parquet")


def test_numbers_do_not_depend_on_the_hash_seed():
    program = "from biomistral.ngrams import Runs; print(Runs(2).of('bark moss reed').tolist())"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in "12"
    }
    assert len(outputs) == 1
