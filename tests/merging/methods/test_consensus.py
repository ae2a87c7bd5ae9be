"""SCE against a slow second implementation and hand-worked cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch


def slow_sce(base, models, topk):
    """Element by element, as the paper tells it; the variance in float32, as ties depend on it."""
    vectors = np.stack([(model - base).numpy() for model in models])
    if topk < 1:
        mean = np.float32(0) + vectors[0]
        for vector in vectors[1:]:
            mean = mean + vector
        mean = mean / np.float32(len(vectors))
        squares = [(vector - mean) ** 2 for vector in vectors]
        variance = sum(squares[1:], squares[0]) / np.float32(len(vectors))
        num_kept = int(np.count_nonzero(variance) * topk)
        kept = np.argsort(-variance, kind="stable")[:num_kept]
        mask = np.zeros(len(variance), dtype=bool)
        mask[kept] = True
        vectors = np.where(mask, vectors, 0)
    weights = (vectors.astype(np.float64) ** 2).mean(axis=1)
    weights = weights / weights.sum() if weights.sum() >= 1e-6 else np.full(len(models), 1 / 3)
    out = base.double().numpy().copy()
    for j in range(vectors.shape[1]):
        column = vectors[:, j]
        sign = 1 if column.sum() >= 0 else -1
        agreeing = column * sign > 0
        divisor = max(weights[agreeing].sum(), 1e-6)
        out[j] += (weights * column)[agreeing].sum() / divisor
    return out


@pytest.mark.parametrize("topk", [1.0, 0.6, 0.05])
def test_sce_is_the_paper_told_slowly(run, share, normal, block_elements, topk):
    base = normal(0)
    models = [base + 0.1 * (1 + seed) * normal(1 + seed).round() for seed in range(3)]
    got = run("sce", base, [share(model) for model in models], select_topk=topk)
    np.testing.assert_allclose(got, slow_sce(base, models, topk), rtol=1e-5, atol=2e-6)


def test_sce_weighs_by_mean_squares_by_hand(run, share):
    """Mean squares 1 and 4: weights 1/5 and 4/5; the last element has a minority of one."""
    shares = [share([1.0, 1.0, -1.0]), share([2.0, 2.0, 2.0])]
    got = run("sce", [0.0, 0.0, 0.0], shares)
    assert got.tolist() == pytest.approx([(0.2 + 1.6) / 1.0, 1.8, 2.0])


def test_sce_selects_what_differs_most(run, share):
    shares = [share([1.0, 3.0, 2.0, 0.0]), share([1.0, 1.0, 1.5, 0.0])]
    got = run("sce", [0.0] * 4, shares, select_topk=0.5)  # one of the two that vary
    assert got.nonzero().flatten().tolist() == [1]


def test_sce_of_equal_models_is_the_model(run, share, normal):
    got = run("sce", normal(0), [share(normal(1))] * 3)
    torch.testing.assert_close(got, normal(1), rtol=1e-6, atol=1e-6)


def test_sce_of_one_model_is_the_model(run, share, normal):
    got = run("sce", normal(0), [share(normal(1))])
    torch.testing.assert_close(got, normal(1), rtol=1e-6, atol=1e-6)


def test_sce_weighs_small_task_vectors_alike(run, share):
    shares = [share([1e-4, 1e-4]), share([3e-4, 3e-4])]
    assert run("sce", [0.0, 0.0], shares).tolist() == pytest.approx([2e-4] * 2)


def test_sce_without_any_change_is_the_base(run, share, normal):
    for topk in (1.0, 0.5):
        got = run("sce", normal(0), [share(normal(0))] * 2, select_topk=topk)
        assert torch.equal(got, normal(0))
