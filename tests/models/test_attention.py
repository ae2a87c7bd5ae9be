"""Attention on matrix units: exact arithmetic on other hardware, and the same bits in any company."""

from __future__ import annotations

import pytest
import torch

from biomistral.models import attention

SCALING = 0.125


@pytest.fixture(autouse=True)
def _units():
    if attention.library() is None:
        pytest.skip("this processor has no matrix units for bfloat16, or there is no C compiler")


def made(num_queries, before, width=64, heads=6, groups=2, seed=0):
    """Queries, keys and values with room behind them, and how many keys each query sees."""
    generator = torch.Generator().manual_seed(seed)
    capacity = before + num_queries + 5
    path = torch.randn(2, groups, capacity, width, generator=generator).bfloat16()
    path[:, :, before + num_queries :] = float("nan")  # what was never written is never read
    queries = torch.randn(num_queries, heads, width, generator=generator).bfloat16()
    limits = torch.arange(before + 1, before + num_queries + 1, dtype=torch.int32)
    return queries, path, limits


def exact(queries, path, limits, scaling=SCALING):
    """In float64, score by score."""
    sharing = queries.shape[1] // path.shape[1]
    keys, values = path.double().repeat_interleave(sharing, dim=1)  # (heads, N, D)
    found = torch.empty(queries.shape, dtype=torch.float64)
    for row, limit in enumerate(limits.tolist()):
        scores = torch.einsum("hd,hnd->hn", queries[row].double(), keys[:, :limit]) * scaling
        found[row] = torch.einsum("hn,hnd->hd", scores.softmax(dim=-1), values[:, :limit])
    return found


@pytest.mark.parametrize("width", [32, 64, 96, 128])
@pytest.mark.parametrize(
    ("num_queries", "before"), [(1, 0), (5, 0), (16, 16), (17, 15), (40, 33), (33, 300)]
)
def test_it_is_as_exact_as_bfloat16_can_be(width, num_queries, before):
    queries, path, limits = made(num_queries, before, width)
    found = attention.attend(queries, path, limits, SCALING).double()
    wanted = exact(queries, path, limits)
    assert (found - wanted).abs().max() < 0.02
    # Rounding what comes out is about half of what an average number is off by.
    rounding = (wanted.bfloat16().double() - wanted).abs().mean()
    assert (found - wanted).abs().mean() <= 2.5 * rounding


@pytest.mark.parametrize("groups", [1, 3, 6])
def test_heads_share_keys_with_their_neighbours(groups):
    queries, path, limits = made(20, 9, groups=groups)
    found = attention.attend(queries, path, limits, SCALING).double()
    torch.testing.assert_close(found, exact(queries, path, limits), atol=0.02, rtol=0)


def test_the_same_bits_come_out_whatever_else_is_asked():
    queries, path, limits = made(50, 70)
    whole = attention.attend(queries, path, limits, SCALING)
    for rows in ([49], [0, 7], list(range(3, 40))):
        some = attention.attend(queries[rows], path, limits[rows], SCALING)
        assert torch.equal(some, whole[rows])


def test_the_same_bits_come_out_with_any_number_of_threads():
    queries, path, limits = made(20, 9)
    threads = torch.get_num_threads()
    one = attention.attend(queries, path, limits, SCALING)
    try:
        torch.set_num_threads(2)
        assert torch.equal(attention.attend(queries, path, limits, SCALING), one)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("size", [1e-3, 30.0, 1e4])
def test_large_and_small_scores_are_weighed(size):
    queries, path, limits = made(18, 40)
    queries = (queries * size).bfloat16()
    found = attention.attend(queries, path, limits, SCALING).double()
    torch.testing.assert_close(found, exact(queries, path, limits), atol=0.03, rtol=0)


def test_what_is_no_number_stays_none():
    queries, path, limits = made(18, 40)
    queries[3] = float("nan")
    found = attention.attend(queries, path, limits, SCALING)
    assert found[3].isnan().all()
    assert not found[4:].isnan().any()


def test_products_of_pytorch_around_it_are_not_disturbed():
    queries, path, limits = made(18, 40)
    left, right = torch.randn(64, 128).bfloat16(), torch.randn(128, 96).bfloat16()
    before = left @ right
    attention.attend(queries, path, limits, SCALING)
    assert torch.equal(left @ right, before)


def test_other_types_and_widths_are_left_to_pytorch():
    assert attention.is_available(torch.zeros(2, 2, 9, 64).bfloat16())
    assert not attention.is_available(torch.zeros(2, 2, 9, 64))
    assert not attention.is_available(torch.zeros(2, 2, 9, 80).bfloat16())
    assert not attention.is_available(torch.zeros(2, 9, 2, 64).bfloat16().transpose(1, 2))


def test_no_queries_find_nothing():
    queries, path, limits = made(4, 4)
    assert attention.attend(queries[:0], path, limits[:0], SCALING).shape == (0, 6, 64)
