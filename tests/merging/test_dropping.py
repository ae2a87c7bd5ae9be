"""DARE's random numbers against Philox written out by hand, and against chance."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from biomistral.merging.dropping import dropping_key, keep_mask

MASK = 2**64 - 1


def philox(counter: int, key: int) -> list[int]:
    """Philox4x64-10 as in the paper of Salmon et al. (2011): four words of 64 bits."""
    c = [counter >> 64 * i & MASK for i in range(4)]
    k = [key & MASK, key >> 64]
    for _ in range(10):
        high0, low0 = divmod(0xD2E7470EE14C6C93 * c[0], 2**64)
        high1, low1 = divmod(0xCA5A826395121157 * c[2], 2**64)
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B97F4A7C15) & MASK, (k[1] + 0xBB67AE8584CAA73B) & MASK]
    return c


def number_of(key: int, index: int) -> int:
    """The 32-bit number of one element, by the rule in the docstring of the module."""
    words = philox(index // 8 + 1, key)
    word = words[index % 8 // 2]
    return word >> 32 if index % 2 else word & 0xFFFFFFFF


@pytest.mark.parametrize("density", [0.1, 0.5, 0.93])
def test_an_element_is_kept_if_its_philox_number_is_small(density):
    key = dropping_key(42, 1, "model.norm.weight")
    expected = [number_of(key, index) < density * 2**32 for index in range(50)]
    assert keep_mask(key, density, 0, 50).tolist() == expected


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (3, 17), (8, 16), (15, 16), (39, 100)])
def test_a_piece_is_a_piece_of_the_whole(start, stop):
    whole = keep_mask(7, 0.5, 0, 100)
    assert torch.equal(keep_mask(7, 0.5, start, stop), whole[start:stop])


def test_the_kept_share_is_the_density():
    n = 200_000
    for density in (0.05, 0.5, 0.9):
        kept = int(keep_mask(dropping_key(0, 0, "a"), density, 0, n).sum())
        deviation = math.sqrt(n * density * (1 - density))
        assert abs(kept - n * density) < 5 * deviation


def test_density_one_keeps_all():
    assert keep_mask(3, 1.0, 5, 1000).all()


def test_a_higher_density_keeps_what_a_lower_one_keeps():
    low, high = (keep_mask(9, density, 0, 5000) for density in (0.3, 0.6))
    assert bool((high | ~low).all())


def test_keys_differ_by_seed_model_and_tensor():
    places = [(0, 0, "a"), (1, 0, "a"), (0, 1, "a"), (0, 0, "b"), (0, 1, "1a")]
    keys = {dropping_key(*place) for place in places}
    assert len(keys) == len(places)
    masks = [keep_mask(key, 0.5, 0, 20_000).double().numpy() for key in sorted(keys)]
    correlations = np.corrcoef(masks) - np.eye(len(masks))
    assert np.abs(correlations).max() < 5 / math.sqrt(20_000)
