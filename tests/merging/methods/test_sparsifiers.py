"""Which elements of a task vector are kept, against sorts and chance."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from biomistral.merging.dropping import keep_mask, random_numbers
from biomistral.merging.methods.blocks import Share, places
from biomistral.merging.methods.sparsifiers import crumb_keeper, dropper, ranked_dropper, trimmer


def sparse(make, values, *options, **numbers):
    """Apply a sparsifier to the values, as a task vector to a base of zeros."""
    values = torch.as_tensor(values, dtype=torch.float32)
    each = Share(values, **numbers)
    sparsify = make(torch.zeros_like(values), each, *options)
    return torch.cat([sparsify(place, values[place]) for place in places(values)])


def descending(vector):
    """Places of a vector by magnitude, the largest first; of equal ones the first first."""
    return np.argsort(-np.abs(np.asarray(vector, dtype=np.float32)), kind="stable")


def slow_select(vector, first, end):
    """Keep the elements whose rank by magnitude, from the top, is in first to end."""
    out = np.zeros(len(vector), dtype=np.float32)
    chosen = descending(vector)[first:end]
    out[chosen] = np.asarray(vector, dtype=np.float32)[chosen]
    return out


few = st.lists(st.integers(-3, 3), min_size=1, max_size=40)
densities = st.floats(0.01, 1.0)


# --- trimming ---


@settings(deadline=None, max_examples=40)
@given(few, densities)
def test_trimming_keeps_the_largest(vector, density):
    expected = slow_select(vector, 0, int(density * len(vector)))
    np.testing.assert_array_equal(sparse(trimmer, vector, density=density).numpy(), expected)


def test_what_is_dropped_is_zero_and_never_minus_zero():
    for make, options in ((trimmer, ()), (dropper, ("density",)), (crumb_keeper, ())):
        got = sparse(make, [-1.0] * 100, *options, density=0.5, key=4)
        zeros = got[got == 0]
        assert 0 < len(zeros) < 100
        assert not torch.signbit(zeros).any()


# --- breadcrumbs ---


@settings(deadline=None, max_examples=60)
@given(few, densities, st.floats(0.0, 0.99))
def test_breadcrumbs_keep_what_is_between_the_tails(vector, density, gamma):
    num_kept = int(density * len(vector))
    outliers = min(int(gamma * len(vector)), len(vector) - num_kept)
    expected = slow_select(vector, outliers, outliers + num_kept)
    got = sparse(crumb_keeper, vector, density=density, gamma=gamma)
    np.testing.assert_array_equal(got.numpy(), expected)


def test_breadcrumbs_by_hand():
    vector = [5.0, -1.0, 2.0, -4.0, 3.0, 0.5, 0.1, 0.2, 0.3, 0.4]
    got = sparse(crumb_keeper, vector, density=0.3, gamma=0.2)  # without 5 and -4
    assert got.nonzero().flatten().tolist() == [1, 2, 4]


def test_breadcrumbs_without_outliers_trim_as_ties(normal, block_elements):
    for density in (0.2, 0.7, 1.0):
        crumbs = sparse(crumb_keeper, normal(0), density=density, gamma=0.0)
        assert torch.equal(crumbs, sparse(trimmer, normal(0), density=density))


def test_outliers_never_lower_the_density(normal):
    for gamma in (0.0, 0.1, 0.5, 0.9):
        got = sparse(crumb_keeper, normal(0, 1000), density=0.4, gamma=gamma)
        assert got.count_nonzero() == 400


# --- dare ---


def test_dare_keeps_by_the_counted_numbers(normal, block_elements):
    got = sparse(dropper, normal(0), "density", density=0.4, key=7)
    kept = keep_mask(7, 0.4, 0, 5000)
    expected = np.where(kept, normal(0).numpy() * np.float32(1 / 0.4), np.float32(0))
    np.testing.assert_array_equal(got.numpy(), expected)


@pytest.mark.parametrize("make", [dropper, ranked_dropper])
def test_rescaled_to_the_l1_norm_it_has_that_norm(make, normal, block_elements):
    got = sparse(make, normal(0), "l1_norm", density=0.3, epsilon=0.2, key=1, row_elements=50)
    assert float(got.abs().sum()) == pytest.approx(float(normal(0).abs().sum()), rel=1e-5)
    assert 0 < got.count_nonzero() < 5000


@pytest.mark.parametrize("make", [dropper, ranked_dropper])
def test_not_rescaled_it_has_the_elements_as_they_were(make, normal):
    got = sparse(make, normal(0), "none", density=0.3, epsilon=0.2, key=1)
    assert torch.equal(got[got != 0], normal(0)[got != 0])


@pytest.mark.parametrize("rescale", ["density", "l1_norm", "none"])
@pytest.mark.parametrize("make", [dropper, ranked_dropper])
def test_a_zero_vector_stays_zero(make, rescale):
    assert not sparse(make, torch.zeros(100), rescale, density=0.3, epsilon=0.1, key=1).any()


# --- della ---


def slow_della(vector, density, epsilon, key, columns):
    """One element after the other: its rank in its row, its chance, its number."""
    out = np.zeros(len(vector), dtype=np.float32)
    numbers = random_numbers(key, 0, len(vector))
    for start in range(0, len(vector), columns):
        row = vector[start : start + columns]
        for rank_from_top, index in enumerate(descending(row)):
            fraction = (columns - 1 - rank_from_top) / (columns - 1)
            chance = fraction * (2 * epsilon) + (density - epsilon)
            if numbers[start + index] < round(chance * 2**32):
                out[start + index] = row[index] * np.float32(1 / chance)
    return out


@pytest.mark.parametrize("columns", [2, 50, 1250, 5000])
def test_della_is_the_paper_told_slowly(normal, block_elements, columns):
    vector = (normal(0) * 4).round()  # many equal magnitudes
    got = sparse(
        ranked_dropper, vector, "density", density=0.4, epsilon=0.3, key=3, row_elements=columns
    )
    np.testing.assert_array_equal(got.numpy(), slow_della(vector.numpy(), 0.4, 0.3, 3, columns))


def test_della_without_a_window_drops_as_dare(normal, block_elements):
    for rescale in ("density", "l1_norm", "none"):
        numbers = {"density": 0.4, "key": 3, "row_elements": 50}
        della = sparse(ranked_dropper, normal(0), rescale, epsilon=0.0, **numbers)
        assert torch.equal(della, sparse(dropper, normal(0), rescale, **numbers))


def test_della_keeps_the_large_more_often_and_the_density_overall():
    n, density, epsilon = 200_000, 0.5, 0.3
    vector = torch.arange(1.0, n + 1)
    kept = sparse(ranked_dropper, vector, "none", density=density, epsilon=epsilon, key=5) != 0
    deviation = math.sqrt(1 / n)
    assert abs(float(kept.double().mean()) - density) < 5 * deviation
    for tenth, piece in enumerate(kept.split(n // 10)):
        expected = density - epsilon + 2 * epsilon * (tenth + 0.5) / 10
        assert abs(float(piece.double().mean()) - expected) < 5 * math.sqrt(10 / n)


def test_della_keeps_the_mean_of_the_task_vector():
    n = 200_000
    got = sparse(ranked_dropper, torch.ones(n), "density", density=0.5, epsilon=0.3, key=5)
    assert abs(float(got.double().mean()) - 1.0) < 5 * math.sqrt(2.0 / n)


def test_della_of_rows_of_one_element_is_dare(normal):
    della = sparse(ranked_dropper, normal(0), "density", density=0.4, epsilon=0.3, row_elements=1)
    assert torch.equal(della, sparse(dropper, normal(0), "density", density=0.4))


# --- all ---


@pytest.mark.parametrize(
    ("make", "options"),
    [(trimmer, ()), (crumb_keeper, ()), (dropper, ("density",)), (ranked_dropper, ("l1_norm",))],
)
def test_density_one_keeps_all(make, options, normal):
    got = sparse(make, normal(0), *options, density=1.0, gamma=0.2, epsilon=0.1)
    assert torch.equal(got, normal(0))
