"""Counting finds what a stable sort finds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from biomistral.merging.methods.magnitudes import cut_after


def kept(numbers, num_kept, block=16):
    """Indices kept, computed in small blocks."""
    values = torch.tensor(numbers, dtype=torch.float32)
    places = [slice(at, min(at + block, len(values))) for at in range(0, len(values), block)]
    cut = cut_after(num_kept, lambda place: values[place], places)
    return torch.cat([cut.keeps(place, values[place]) for place in places]).nonzero().flatten()


def slow_kept(numbers, num_kept):
    order = np.argsort(-np.abs(np.array(numbers, dtype=np.float32)), kind="stable")
    return sorted(order[:num_kept].tolist())


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=60), st.data())
def test_the_cut_is_exact_when_most_magnitudes_are_equal(numbers, data):
    num_kept = data.draw(st.integers(0, len(numbers)))
    assert kept(numbers, num_kept).tolist() == slow_kept(numbers, num_kept)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=60), st.data())
def test_the_cut_is_exact_for_any_floats(numbers, data):
    num_kept = data.draw(st.integers(0, len(numbers)))
    assert kept(numbers, num_kept).tolist() == slow_kept(numbers, num_kept)


def test_of_equal_magnitudes_the_first_are_kept():
    assert kept([1.0, -2.0, 1.0, -1.0, 1.0] * 10, 10 + 15).tolist() == slow_kept(
        [1.0, -2.0, 1.0, -1.0, 1.0] * 10, 25
    )


def test_cutting_after_none_keeps_nothing_and_after_all_everything():
    assert kept([0.0, 1.0, 2.0], 0).tolist() == []
    assert kept([0.0, 1.0, 2.0], 3).tolist() == [0, 1, 2]


def test_more_than_there_are_is_a_bug_of_ours():
    with pytest.raises((AssertionError, IndexError)):
        kept([1.0, 2.0], 3)
