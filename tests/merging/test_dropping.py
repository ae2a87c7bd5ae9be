"""The random numbers of DARE and DELLA against published ones, a slow form, and chance."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from biomistral.merging.dropping import dropping_key, keep_mask, random_numbers

MASK = 2**64 - 1
# First outputs for the seed 1234567, as published with several implementations of SplitMix64.
PUBLISHED = [
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
]


def splitmix(state: int) -> int:
    """One output of SplitMix64, from the state after its step."""
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & MASK
    state = (state ^ state >> 27) * 0x94D049BB133111EB & MASK
    return state ^ state >> 31


def number_of(key: int, index: int) -> int:
    """The 32-bit number of one element, by the rule in the docstring of the module."""
    word = splitmix(key + (index // 2 + 1) * 0x9E3779B97F4A7C15 & MASK)
    return word >> 32 if index % 2 else word & 0xFFFFFFFF


def test_the_words_are_the_published_outputs_of_splitmix64():
    numbers = random_numbers(1234567, 0, 10).tolist()
    assert [low + (high << 32) for low, high in zip(numbers[::2], numbers[1::2], strict=True)] == (
        PUBLISHED
    )


@pytest.mark.parametrize("density", [0.1, 0.5, 0.93])
def test_an_element_is_kept_if_its_number_is_small(density):
    key = dropping_key(42, 1, "model.norm.weight")
    expected = [number_of(key, index) < density * 2**32 for index in range(50)]
    assert keep_mask(key, density, 0, 50).tolist() == expected


@pytest.mark.parametrize("key", [0, 1, 2**63, 2**64 - 1])
def test_counting_wraps_around(key):
    start = 2**33 + 1
    expected = [number_of(key, index) for index in range(start, start + 6)]
    assert random_numbers(key, start, start + 6).tolist() == expected


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (3, 17), (8, 16), (15, 16), (39, 100)])
def test_a_piece_is_a_piece_of_the_whole(start, stop):
    whole = keep_mask(7, 0.5, 0, 100)
    np.testing.assert_array_equal(keep_mask(7, 0.5, start, stop), whole[start:stop])


def test_the_kept_share_is_the_density():
    n = 200_000
    for density in (0.05, 0.5, 0.9):
        kept = int(keep_mask(dropping_key(0, 0, "a"), density, 0, n).sum())
        deviation = math.sqrt(n * density * (1 - density))
        assert abs(kept - n * density) < 5 * deviation


def test_neighbours_are_independent():
    mask = keep_mask(dropping_key(0, 0, "a"), 0.5, 0, 200_000).astype(float)
    for lag in (1, 2, 3, 64, 4096):
        assert abs(np.corrcoef(mask[:-lag], mask[lag:])[0, 1]) < 5 / math.sqrt(200_000)


def test_density_one_keeps_all_and_a_vanishing_one_nothing():
    assert keep_mask(3, 1.0, 5, 1000).all()
    assert not keep_mask(3, 1e-11, 5, 1000).any()


def test_a_higher_density_keeps_what_a_lower_one_keeps():
    low, high = (keep_mask(9, density, 0, 5000) for density in (0.3, 0.6))
    assert bool((high | ~low).all())


def test_keys_differ_by_seed_model_and_tensor():
    places = [(0, 0, "a"), (1, 0, "a"), (0, 1, "a"), (0, 0, "b"), (0, 1, "1a")]
    keys = {dropping_key(*place) for place in places}
    assert len(keys) == len(places)
    assert all(0 <= key < 2**64 for key in keys)
    masks = [keep_mask(key, 0.5, 0, 20_000).astype(float) for key in sorted(keys)]
    correlations = np.corrcoef(masks) - np.eye(len(masks))
    assert np.abs(correlations).max() < 5 / math.sqrt(20_000)


def test_making_keys_needs_no_numerical_library():
    code = (
        "import sys; from biomistral.merging.dropping import dropping_key; dropping_key(1, 2, 'a')\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
