"""Two thin matrices for one: as good as the exact decomposition, and the same each time."""

from __future__ import annotations

import pytest
import torch

from biomistral.merging.low_rank import factors, norm_of_product


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def decaying(rows, columns, power=1.0):
    """A matrix whose i-th singular value is 1 / i^power."""
    length = min(rows, columns)
    u = torch.linalg.qr(torch.randn(rows, length, generator=generator(1)))[0]
    v = torch.linalg.qr(torch.randn(columns, length, generator=generator(2)))[0]
    return (u / torch.arange(1, length + 1) ** power) @ v.T


@pytest.mark.parametrize("shape", [(20, 50), (50, 20), (300, 400), (400, 270)])
@pytest.mark.parametrize("rank", [1, 8])
def test_no_product_of_that_rank_is_much_closer(shape, rank):
    matrix = decaying(*shape)
    b, a = factors(matrix, rank, generator())
    assert (b.shape, a.shape) == ((shape[0], rank), (rank, shape[1]))
    best = 1 / torch.arange(rank + 1, min(shape) + 1)  # Eckart and Young
    error = torch.linalg.matrix_norm(matrix - b @ a)
    assert error <= best.norm() * 1.001
    assert norm_of_product(b) == pytest.approx(float((b @ a).norm()), rel=1e-5)


@pytest.mark.parametrize("shape", [(30, 40), (300, 400)])
def test_a_matrix_of_low_rank_is_recovered(shape):
    b = torch.randn(shape[0], 5, generator=generator(3))
    matrix = b @ torch.randn(5, shape[1], generator=generator(4))
    b, a = factors(matrix, 5, generator())
    assert torch.allclose(b @ a, matrix, atol=1e-4)


def test_full_rank_is_the_matrix_itself():
    matrix = torch.randn(30, 40, generator=generator(5))
    b, a = factors(matrix, 99, generator())
    assert b.shape == (30, 30)
    assert torch.allclose(b @ a, matrix, atol=1e-5)


def test_nothing_has_zero_factors():
    b, a = factors(torch.zeros(300, 400), 4, generator())
    assert not b.any()
    assert not a.isnan().any()


def test_the_same_generator_gives_the_same_factors():
    matrix = decaying(300, 400, power=0.5)
    first, again, other = (factors(matrix, 8, generator(seed)) for seed in (7, 7, 8))
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])
