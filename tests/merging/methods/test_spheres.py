"""Interpolation along arcs against formulas in float64 and hand-worked cases."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from biomistral.errors import ModelError

# --- slerp ---


def slow_slerp(base, other, t, parallel=0.9995):
    """Shoemake's formula in float64."""
    a, b = base.double().numpy(), other.double().numpy()
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    if abs(cosine) > parallel:
        return (1 - t) * a + t * b
    angle = math.acos(cosine)
    return (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.5, 30.0])
def test_slerp_ends_at_the_models(run, share, normal, noise):
    base, other = normal(0), normal(0) + noise * normal(1)
    assert torch.equal(run("slerp", base, [share(other)], t=0.0), base)
    assert torch.equal(run("slerp", base, [share(other)], t=1.0), other)


def test_slerp_of_a_right_angle_by_hand(run, share):
    half = run("slerp", [1.0, 0.0], [share([0.0, 1.0])], t=0.5)
    assert half.tolist() == pytest.approx([math.sqrt(0.5)] * 2)
    third = run("slerp", [1.0, 0.0], [share([0.0, 1.0])], t=1 / 3)
    assert third.tolist() == pytest.approx([math.cos(math.pi / 6), 0.5])


@pytest.mark.parametrize("t", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("noise", [0.02, 0.04, 1.0])  # cosines 0.9998, 0.9992, 0.7
def test_slerp_follows_the_formula(run, share, normal, block_elements, noise, t):
    base, other = normal(0), normal(0) + noise * normal(1)
    got = run("slerp", base, [share(other)], t=t).numpy()
    np.testing.assert_allclose(got, slow_slerp(base, other, t), rtol=2e-6, atol=1e-6)


def test_slerp_falls_back_to_the_line_only_above_the_threshold(run, share):
    base = torch.tensor([1.0, 0.0])
    for cosine, straight in ((0.99951, True), (0.99949, False), (-0.99951, True)):
        other = torch.tensor([cosine, math.sqrt(1 - cosine**2)])
        line = (0.75 * base + 0.25 * other).norm()
        got = run("slerp", base, [share(other)], t=0.25).norm()
        assert (abs(float(got - line)) < 1e-6) == straight
        if not straight:
            assert float(got) == pytest.approx(1.0, abs=1e-6)  # it stays on the circle


def test_slerp_with_a_zero_tensor_is_finite(run, share):
    assert torch.isfinite(run("slerp", [0.0, 0.0], [share([1.0, 2.0])], t=0.5)).all()


# --- nuslerp ---


@pytest.mark.parametrize("noise", [0.001, 0.04, 1.0])
def test_nuslerp_follows_the_formula_with_t_from_the_weights(
    run, share, normal, block_elements, noise
):
    one, other = normal(0), normal(0) + noise * normal(1)
    got = run("nuslerp", None, [share(one, 0.9), share(other, 0.3)]).numpy()
    np.testing.assert_allclose(got, slow_slerp(one, other, 0.25, 1.0), rtol=2e-6, atol=1e-6)


def test_nuslerp_with_a_base_interpolates_task_vectors(run, share, normal):
    base, one, other = normal(0), normal(1), normal(2)
    got = run("nuslerp", base, [share(one, 1.0), share(other, 3.0)])
    expected = base.numpy() + slow_slerp(one - base, other - base, 0.75)
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6)


def test_nuslerp_knows_only_the_ratio_of_weights(run, share, normal):
    results = [
        run("nuslerp", None, [share(normal(0), scale), share(normal(1), 3 * scale)])
        for scale in (1.0, 0.5, -2.0)
    ]
    assert all(torch.equal(result, results[0]) for result in results)


def test_nuslerp_of_all_the_weight_is_that_model(run, share, normal):
    shares = [share(normal(0), 0.0), share(normal(1), 0.7)]
    assert torch.equal(run("nuslerp", None, shares), normal(1))


def test_nuslerp_with_weights_that_sum_to_zero_is_half_way(run, share, normal):
    shares = [share(normal(0), 1.0), share(normal(1), -1.0)]
    equal = [share(normal(0), 1.0), share(normal(1), 1.0)]
    assert torch.equal(run("nuslerp", None, shares), run("nuslerp", None, equal))


def test_nuslerp_of_opposite_models_is_the_line(run, share, normal):
    for nudge in (0.0, 1e-7):
        got = run("nuslerp", None, [share(normal(0), 0.7), share(normal(0) * (nudge - 1), 0.3)])
        np.testing.assert_allclose(got, 0.4 * normal(0), rtol=1e-5, atol=1e-6)


# --- multi-slerp ---


def slow_multislerp(vectors, weights):
    """The published formula with its step in the tangent space, in float64."""
    vectors = [vector.double().numpy() for vector in vectors]
    norms = [np.linalg.norm(vector) for vector in vectors]
    units = [vector / norm for vector, norm in zip(vectors, norms, strict=True)]
    mean = sum(w * u for w, u in zip(weights, units, strict=True))
    mean /= np.linalg.norm(mean)
    tangent = sum(w * (u - (u @ mean) * mean) for w, u in zip(weights, units, strict=True))
    length = np.linalg.norm(tangent) + 1e-8
    point = np.cos(length) * mean + np.sin(length) / length * tangent
    return point * sum(w * n for w, n in zip(weights, norms, strict=True))


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.2, 0.5, 0.3), (2.0, 1.0, 1.0)])
def test_multislerp_follows_the_formula(run, share, normal, block_elements, weights):
    vectors = [normal(9) + (1 + i) * normal(i) for i in range(len(weights))]
    got = run("multislerp", None, [share(v, w) for v, w in zip(vectors, weights, strict=True)])
    shares_of_one = [weight / sum(weights) for weight in weights]
    np.testing.assert_allclose(got, slow_multislerp(vectors, shares_of_one), rtol=1e-5, atol=2e-6)


def test_multislerp_with_a_base_is_that_of_task_vectors(run, share, normal):
    base, models = normal(0), [normal(1), normal(2), normal(3)]
    got = run("multislerp", base, [share(model) for model in models])
    expected = base.numpy() + slow_multislerp([model - base for model in models], [1 / 3] * 3)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=3e-6)


def test_multislerp_weights_as_given_if_not_normalized(run, share, normal):
    shares = [share(normal(1), 1.0), share(normal(2), 1.0)]
    got = run("multislerp", None, shares, normalize_weights=False)
    torch.testing.assert_close(got, 2 * run("multislerp", None, shares), rtol=1e-5, atol=1e-6)


def test_multislerp_and_karcher_keep_the_mean_norm(run, share, normal):
    vectors = [normal(1), 2 * normal(2), 3 * normal(3)]
    expected = sum(float(vector.norm()) for vector in vectors) / 3
    for method in ("multislerp", "karcher"):
        got = run(method, None, [share(vector) for vector in vectors])
        assert float(got.norm()) == pytest.approx(expected, rel=1e-5)


def test_multislerp_of_opposite_models_is_the_line(run, share):
    shares = [share([1.0, 2.0], 1.0), share([-3.0, -6.0], 1.0)]
    assert run("multislerp", None, shares).tolist() == [-1.0, -2.0]


def test_multislerp_without_any_change_is_the_base(run, share, normal):
    shares = [share(normal(0)) for _ in range(3)]
    assert torch.equal(run("multislerp", normal(0), shares), normal(0))


def test_multislerp_refuses_directions_that_cancel_out(run, share):
    triangle = [share([math.cos(a), math.sin(a)]) for a in (0, 2 * math.pi / 3, -2 * math.pi / 3)]
    with pytest.raises(ModelError, match=r"multislerp: .* cancel out .* change the weights"):
        run("multislerp", None, triangle)


def test_multislerp_of_one_model_is_the_model(run, share, normal):
    assert torch.equal(run("multislerp", normal(0), [share(normal(1), 0.3)]), normal(1))


# --- karcher mean ---


def slow_karcher(vectors, steps=200):
    """Gradient descent on the sphere in float64, on the vectors themselves."""
    vectors = [vector.double().numpy() for vector in vectors]
    norms = [np.linalg.norm(vector) for vector in vectors]
    units = [vector / norm for vector, norm in zip(vectors, norms, strict=True)]
    mean = np.mean(units, axis=0)
    for _ in range(steps):
        mean /= np.linalg.norm(mean)
        tangent = np.zeros_like(mean)
        for unit in units:
            angle = math.acos(min(1.0, mean @ unit))
            if angle > 1e-12:
                tangent += angle / math.sin(angle) * (unit - (unit @ mean) * mean)
        mean = mean + 0.3 * tangent / len(units)
    return mean / np.linalg.norm(mean) * np.mean(norms)


@pytest.mark.parametrize("spread", [0.05, 0.5, 5.0])
def test_karcher_is_the_centre_of_mass(run, share, normal, block_elements, spread):
    vectors = [normal(9) + spread * normal(seed) for seed in range(4)]
    got = run("karcher", None, [share(vector) for vector in vectors], max_iter=100, tol=1e-9)
    np.testing.assert_allclose(got, slow_karcher(vectors), rtol=1e-4, atol=2e-6 * (1 + spread))


def test_karcher_of_two_models_is_half_way_on_the_arc(run, share, normal):
    one, other = normal(0), normal(1) * float(normal(0).norm() / normal(1).norm())
    got = run("karcher", None, [share(one), share(other)])
    half = run("slerp", one, [share(other)], t=0.5)
    torch.testing.assert_close(got, half, rtol=1e-5, atol=1e-6)


def test_karcher_of_equal_models_is_the_model(run, share, normal):
    got = run("karcher", None, [share(normal(0))] * 3)
    torch.testing.assert_close(got, normal(0), rtol=1e-6, atol=1e-7)


def test_karcher_of_a_corner_is_its_middle(run, share):
    shares = [share([float(i == j) for j in range(3)]) for i in range(3)]
    assert run("karcher", None, shares).tolist() == pytest.approx([3**-0.5] * 3)


def test_karcher_takes_models_in_any_order(run, share, normal):
    vectors = [normal(9) + normal(seed) for seed in range(3)]
    expected = run("karcher", None, [share(vector) for vector in vectors])
    for order in itertools.permutations(vectors):
        got = run("karcher", None, [share(vector) for vector in order])
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_karcher_leaves_out_a_model_of_zeros_but_counts_its_norm(run, share):
    shares = [share([0.0, 2.0]), share([0.0, 0.0])]
    assert run("karcher", None, shares).tolist() == [0.0, 1.0]
    assert run("karcher", None, [share([0.0, 0.0])] * 2).tolist() == [0.0, 0.0]


def test_karcher_of_opposite_models_is_finite(run, share):
    got = run("karcher", None, [share([1.0, 0.0]), share([-1.0, 0.0])])
    assert torch.isfinite(got).all()
    assert float(got.norm()) == pytest.approx(1.0)
