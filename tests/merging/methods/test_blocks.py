"""Sums come out the same however a tensor is cut, and as the rule says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from biomistral.merging.methods.blocks import (
    BLOCK_ELEMENTS,
    add_up,
    cosine,
    inner_products,
    places,
    vector_block,
)


def slow_sum(values):
    """The rule in the docstring of the module, one addition after the other."""
    total = 0.0
    for start in range(0, len(values), 4096):
        chunk = [float(value) for value in values[start : start + 4096]]
        chunk += [0.0] * (4096 - len(chunk))
        lanes = [0.0] * 64
        for index, value in enumerate(chunk):
            lanes[index % 64] += value
        half = 32
        while half:
            for lane in range(half):
                lanes[lane] += lanes[lane + half]
            half //= 2
        total += lanes[0]
    return total


@pytest.mark.parametrize("n", [1, 63, 4095, 4096, 4097, 12_000])
def test_a_sum_has_the_written_order(normal, n):
    values = normal(n, n).double() * 10.0 ** normal(n + 1, n)
    assert add_up(0.0, values) == slow_sum(values.tolist())


def test_a_sum_goes_on_from_block_to_block(normal):
    values = normal(0, 4096 * 5 + 17)
    total = 0.0
    for piece in values.split(4096 * 2):
        total = add_up(total, piece)
    assert total == add_up(0.0, values)


def test_a_sum_is_right(normal):
    values = normal(3, 50_000)
    assert add_up(0.0, values) == pytest.approx(math.fsum(values.tolist()), rel=1e-13, abs=1e-10)


def test_no_terms_add_nothing():
    assert add_up(2.5, torch.empty(0)) == 2.5


def test_a_sum_does_not_touch_its_terms(normal):
    values = normal(0, 4096).double()
    add_up(0.0, values)
    assert torch.equal(values, normal(0, 4096).double())


def test_places_cover_all_elements_once():
    values = torch.empty(2 * BLOCK_ELEMENTS + 5)
    cut = list(places(values))
    assert [place.start for place in cut] == [0, BLOCK_ELEMENTS, 2 * BLOCK_ELEMENTS]
    assert cut[-1].stop == values.numel()
    assert BLOCK_ELEMENTS % 4096 == 0


def test_inner_products_are_those_of_numpy(normal, block_elements):
    vectors, base = [normal(seed) for seed in range(3)], normal(9)
    plain = np.stack([vector.double().numpy() for vector in vectors])
    np.testing.assert_allclose(inner_products(vectors), plain @ plain.T, rtol=1e-12)
    differences = np.stack([(vector - base).double().numpy() for vector in vectors])
    np.testing.assert_allclose(
        inner_products(vectors, base), differences @ differences.T, rtol=1e-12
    )


def test_cosine_of_known_angles():
    right = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 3.0])
    assert cosine(*right) == 0.0
    assert cosine(right[0], right[0] * 5) == 1.0
    assert cosine(right[0], right[0] * -5) == -1.0
    assert cosine(right[0], torch.tensor([1.0, 1.0])) == pytest.approx(math.sqrt(0.5))
    assert cosine(right[0], torch.tensor([2.0, 1.0]), torch.tensor([1.0, 0.0])) == 0.0


def test_anything_with_slices_is_read_block_by_block():
    """Values need not be a tensor: what is read lazily has a length and slices."""

    class Counting:
        def numel(self):
            return 10

        def __getitem__(self, place):
            return torch.arange(place.start, place.stop, dtype=torch.bfloat16)

    assert vector_block(None, Counting(), slice(3, 5)).tolist() == [3.0, 4.0]
    assert vector_block(torch.ones(10), Counting(), slice(3, 5)).tolist() == [2.0, 3.0]
