"""Rows come in passes, mixed by shares, and the same ones again for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biomistral.errors import InputError
from biomistral.models.rows import PackedRows
from biomistral.training.ordering import RowsInLine, check_same_length, line_up


def test_each_pass_has_every_row_once_in_an_order_of_its_own():
    line = line_up([10], [1.0], 25, seed=1)
    passes = [line.rows[:10].tolist(), line.rows[10:20].tolist()]
    assert [sorted(one) for one in passes] == [list(range(10))] * 2
    assert passes[0] != passes[1]
    assert len(set(line.rows[20:])) == 5


def test_the_seed_decides_and_a_longer_run_begins_alike():
    rows = line_up([10], [1.0], 25, seed=1).rows.tolist()
    assert line_up([10], [1.0], 40, seed=1).rows[:25].tolist() == rows
    assert line_up([10], [1.0], 25, seed=2).rows.tolist() != rows


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=2, max_size=4),
    weights=st.lists(st.floats(0.05, 1), min_size=4, max_size=4),
    places=st.integers(1, 300),
)
def test_at_any_place_each_corpus_has_had_its_share(sizes, weights, places):
    shares = [w / sum(weights[: len(sizes)]) for w in weights[: len(sizes)]]
    line = line_up(sizes, shares, places, seed=0)
    for corpus, (size, share) in enumerate(zip(sizes, shares, strict=True)):
        own = line.corpora == corpus
        due = share * np.arange(1, places + 1)
        assert abs(np.cumsum(own) - due).max() < len(sizes)
        drawn = line.rows[own]
        assert len(drawn) < size or sorted(drawn[:size].tolist()) == list(range(size))


def test_mixing_in_a_corpus_leaves_the_order_of_the_first_as_it_is():
    alone, mixed = line_up([10], [1.0], 20, 3), line_up([10, 5], [0.5, 0.5], 40, 3)
    assert mixed.rows[mixed.corpora == 0].tolist() == alone.rows.tolist()


def test_past_the_end_come_rows_of_padding(make_tokens):
    rows = PackedRows(make_tokens(4))
    data = RowsInLine((rows,), line_up([4], [1.0], 6, 0), 8)
    assert len(data) == 8
    assert [len(data[index][1]) > 0 for index in range(8)] == [True] * 6 + [False] * 2
    assert data[7][0].shape == (32,)
    with pytest.raises(IndexError):
        data[8]


def test_rows_of_different_length_are_refused(make_tokens):
    rows = [PackedRows(make_tokens(4)), PackedRows(make_tokens(4, length=16))]
    with pytest.raises(InputError, match="one sequence_length"):
        check_same_length(rows)
    check_same_length(rows[:1])
