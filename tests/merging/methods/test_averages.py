"""Averages of models against hand-worked cases and slow second implementations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from biomistral.merging.methods import Share

# --- linear ---


def test_linear_is_the_weighted_mean(run, share):
    shares = [share([1.0, 2.0], 3.0), share([5.0, -2.0], 1.0)]
    assert run("linear", [9.0, 9.0], shares).tolist() == [2.0, 1.0]
    assert run("linear", None, shares, normalize=False).tolist() == [8.0, 4.0]


def test_linear_computes_in_float32(run, share):
    ones = torch.ones(1, dtype=torch.bfloat16)
    shares = [share(ones, 1.0), share(ones, 2**-12)]
    assert run("linear", ones, shares, normalize=False).item() == 1 + 2**-12


def test_linear_of_one_model_is_the_model(run, share, normal):
    assert torch.equal(run("linear", None, [share(normal(0))]), normal(0))


def test_linear_of_equal_models_is_the_model(run, share, normal):
    shares = [share(normal(0), weight) for weight in (0.2, 0.5, 1.3)]
    torch.testing.assert_close(run("linear", None, shares), normal(0), rtol=3e-7, atol=0)


def test_linear_takes_models_in_any_order_up_to_rounding(run, share, normal):
    shares = [share(normal(seed), 0.1 + seed) for seed in range(3)]
    expected = run("linear", None, shares)
    for order in itertools.permutations(shares):
        torch.testing.assert_close(run("linear", None, order), expected, rtol=1e-5, atol=1e-6)


# --- passthrough ---


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int64])
def test_passing_through_changes_no_bit(run, share, normal, dtype, block_elements):
    values = (normal(0) * 1000).double().add(1e-9).to(dtype)
    got = run("passthrough", None, [share(values)])
    assert got.dtype == dtype
    assert torch.equal(got, values)


def test_a_minus_zero_passes_through(run, share):
    assert torch.signbit(run("passthrough", None, [share([-0.0])])).all()


def test_a_weight_scales_what_passes_through(run, share):
    assert run("passthrough", None, [share([1.0, -2.0], 0.5)]).tolist() == [0.5, -1.0]


# --- model stock ---


def slow_model_stock(base, models):
    """Equation 3 of the paper with the mean of all cosines, in float64."""
    base = base.double().numpy()
    vectors = [model.double().numpy() - base for model in models]
    num = len(vectors)
    cosines = [
        vectors[i] @ vectors[j] / np.linalg.norm(vectors[i]) / np.linalg.norm(vectors[j])
        for i, j in itertools.combinations(range(num), 2)
    ]
    cosine = np.mean(cosines)
    t = num * cosine / (1 + (num - 1) * cosine)
    return base + t * np.mean(vectors, axis=0)


@pytest.mark.parametrize("num_models", [2, 3, 5])
def test_model_stock_is_the_paper_told_slowly(run, share, normal, block_elements, num_models):
    base, common = normal(0), normal(1)
    models = [base + 0.1 * common + 0.2 * normal(2 + seed) for seed in range(num_models)]
    got = run("model_stock", base, [share(model) for model in models])
    np.testing.assert_allclose(got.numpy(), slow_model_stock(base, models), rtol=1e-5, atol=1e-6)


def test_model_stock_of_a_right_angle_is_the_base(run, share):
    shares = [share([2.0, 1.0]), share([1.0, 3.0])]
    assert run("model_stock", [1.0, 1.0], shares).tolist() == [1.0, 1.0]


def test_model_stock_by_hand(run, share):
    """Cosine 1/2 of two vectors: t = 2 x 1/2 / (1 + 1/2) = 2/3."""
    shares = [share([2.0, 0.0]), share([1.0, 3.0**0.5])]
    got = run("model_stock", [0.0, 0.0], shares)
    assert got.tolist() == pytest.approx([2 / 3 * 1.5, 2 / 3 * 3**0.5 / 2])


def test_model_stock_of_equal_models_is_the_model(run, share, normal):
    got = run("model_stock", normal(0), [share(normal(1))] * 3)
    torch.testing.assert_close(got, normal(1), rtol=1e-6, atol=1e-6)


def test_model_stock_of_opposite_vectors_is_the_base(run, share):
    got = run("model_stock", [0.0, 1.0], [share([1.0, 1.0]), share([-1.0, 1.0])])
    assert got.tolist() == [0.0, 1.0]


def test_model_stock_of_the_base_itself_is_the_base(run, share, normal):
    assert torch.equal(run("model_stock", normal(0), [share(normal(0))] * 2), normal(0))


def test_model_stock_sees_the_angle_of_tiny_vectors_too(run, share):
    shares = [share([2e-6, 0.0]), share([1e-6, 3.0**0.5 * 1e-6])]
    got = run("model_stock", [0.0, 0.0], shares)
    assert got.tolist() == pytest.approx([1e-6, 3**0.5 / 3 * 1e-6])


# --- nearswap ---


def slow_nearswap(base, other, t):
    out = []
    for a, b in zip(base.tolist(), other.tolist(), strict=True):
        fraction = min(t / max(abs(a - b), 1e-6), 1.0)
        out.append(fraction * b + (1 - fraction) * a)
    return out


@pytest.mark.parametrize("t", [0.001, 0.3, 10.0])
def test_nearswap_is_the_formula_told_slowly(run, share, normal, block_elements, t):
    got = run("nearswap", normal(0), [share(normal(1))], t=t)
    np.testing.assert_allclose(got, slow_nearswap(normal(0), normal(1), t), rtol=1e-5, atol=1e-6)


def test_nearswap_takes_what_is_near_whole_and_never_moves_further(run, share, normal):
    base, other, t = normal(0), normal(1), 0.25
    got = run("nearswap", base, [share(other)], t=t)
    near = (base - other).abs() <= t
    assert torch.equal(got[near], other[near])
    assert float((got - base)[~near].abs().max()) == pytest.approx(t, rel=1e-4)


def test_nearswap_at_zero_is_the_base(run, share, normal):
    assert torch.equal(run("nearswap", normal(0), [share(normal(1))], t=0.0), normal(0))
    assert torch.equal(run("nearswap", normal(0), [share(normal(0))], t=0.1), normal(0))


# --- all ---


def test_values_may_be_read_lazily(run, normal):
    """Only slices are taken, in the places of the blocks."""

    class Lazy:
        def numel(self):
            return 5000

        def __getitem__(self, place):
            return normal(1)[place]

    for method, options in (("linear", {}), ("passthrough", {})):
        assert torch.equal(run(method, None, [Share(Lazy())], **options), normal(1))
