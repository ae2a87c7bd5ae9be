"""Every token once, no row overfull, no cut that length does not force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biomistral.corpus.packing import Packing, pack

many_lengths = st.lists(st.integers(0, 60), max_size=40)
row_lengths = st.integers(1, 20)
methods = st.sampled_from(["best_fit", "concatenate"])


def tokens_of(packing: Packing) -> list[tuple[int, int]]:
    return [
        (document, place)
        for row in packing
        for document, start, length in row
        for place in range(start, start + length)
    ]


@given(many_lengths, row_lengths, methods)
def test_every_token_has_one_place(lengths, row_length, method) -> None:
    everything = [(d, i) for d, length in enumerate(lengths) for i in range(length)]
    assert sorted(tokens_of(pack(lengths, row_length, method))) == everything


@given(many_lengths, row_lengths, methods)
def test_no_row_is_empty_or_overfull(lengths, row_length, method) -> None:
    for row in pack(lengths, row_length, method):
        assert row
        assert all(length > 0 for _, _, length in row)
        assert sum(length for _, _, length in row) <= row_length


@given(many_lengths, row_lengths)
def test_best_fit_cuts_no_more_than_length_forces(lengths, row_length) -> None:
    packing = pack(lengths, row_length, "best_fit")
    pieces = np.bincount(packing.documents, minlength=len(lengths))
    assert pieces.tolist() == [-(-length // row_length) for length in lengths]


def slow_best_fit(sizes: list[int], row_length: int) -> list[list[int]]:
    """The definition: longest first, into the fullest row that has room; the newest of equals."""
    rows: list[list[int]] = []
    touched: list[int] = []
    for step, size in enumerate(sorted(sizes, reverse=True)):
        fitting = [i for i, row in enumerate(rows) if sum(row) + size <= row_length]
        if fitting:
            place = max(fitting, key=lambda i: (sum(rows[i]), touched[i]))
            rows[place].append(size)
            touched[place] = step
        else:
            rows.append([size])
            touched.append(step)
    return rows


@given(st.lists(st.integers(1, 20), max_size=40))
def test_best_fit_is_the_definition(sizes) -> None:
    packing = pack(sizes, 20, "best_fit")
    assert [[length for _, _, length in row] for row in packing] == slow_best_fit(sizes, 20)


def test_best_fit_by_hand() -> None:
    rows = [
        [(d, length) for d, _, length in row] for row in pack([3, 25, 7, 4, 10], 10, "best_fit")
    ]
    assert rows == [[(1, 10)], [(1, 10)], [(4, 10)], [(2, 7), (0, 3)], [(1, 5), (3, 4)]]


def test_concatenate_by_hand() -> None:
    assert list(pack([3, 25, 0, 4], 10, "concatenate")) == [
        [(0, 0, 3), (1, 0, 7)],
        [(1, 7, 10)],
        [(1, 17, 8), (3, 0, 2)],
        [(3, 2, 2)],
    ]


@given(many_lengths, row_lengths)
def test_concatenate_keeps_the_order_and_fills_every_row_but_the_last(lengths, row_length) -> None:
    packing = pack(lengths, row_length, "concatenate")
    assert tokens_of(packing) == sorted(tokens_of(packing))
    filled = [sum(length for _, _, length in row) for row in packing]
    assert all(total == row_length for total in filled[:-1])


@pytest.mark.parametrize("method", ["best_fit", "concatenate"])
def test_nothing_packs_into_no_rows(method) -> None:
    assert len(pack([], 10, method)) == 0
    assert list(pack([0, 0], 10, method)) == []


LIKE_ARTICLES = st.builds(
    lambda seed, count: np.random.default_rng(seed).lognormal(8.4, 0.7, count).astype(np.int64) + 2,
    st.integers(0, 1000),
    st.integers(1, 700),
)


@pytest.mark.parametrize(("count", "most"), [(500, 0.003), (5000, 0.001), (16_384, 0.001)])
def test_lengths_like_those_of_articles_leave_little_padding(count: int, most: float) -> None:
    lengths = np.random.default_rng(0).lognormal(8.5, 0.6, count).astype(np.int64) + 2
    rows = len(pack(lengths, 2048, "best_fit"))
    assert 1 - lengths.sum() / (rows * 2048) <= most


@given(LIKE_ARTICLES)
def test_no_document_that_fits_is_cut_and_no_part_is_a_crumb(lengths) -> None:
    packing = pack(lengths, 1024, "best_fit")
    pieces = np.bincount(packing.documents, minlength=len(lengths))
    needed = -(-lengths // 1024)
    assert (pieces[lengths <= 1024] == 1).all()
    assert (pieces >= needed).all()
    assert all(sum(length for _, _, length in row) <= 1024 for row in packing)
    order = np.lexsort((packing.starts, packing.documents))
    documents, sizes = packing.documents[order], packing.lengths[order]
    ends = np.cumsum(sizes)
    first = np.cumsum(lengths) - lengths
    assert (packing.starts[order] == ends - sizes - first[documents]).all()
    assert (ends[np.flatnonzero(np.diff(documents, append=-1))] == np.cumsum(lengths)).all()
    for document in np.flatnonzero(pieces > needed):
        assert (sizes[documents == document] >= 64).all() or lengths[document] % 1024 < 64


def test_where_rooms_are_left_by_hand() -> None:
    lengths = [1400, 800, 800, 900, 100]
    rows = [[(d, n) for d, _, n in row] for row in pack(lengths, 1000, "best_fit")]
    assert rows == [
        [(0, 1000)],
        [(3, 900), (4, 100)],
        [(1, 800), (0, 200)],
        [(2, 800), (0, 200)],
    ]
