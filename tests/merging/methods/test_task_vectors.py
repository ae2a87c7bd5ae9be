"""Merge methods against hand-worked cases and slow second implementations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from biomistral.merging.methods import blocks
from biomistral.merging.dropping import keep_mask
from biomistral.merging.methods import METHODS, Share


def run(method, base, shares, **options):
    """Apply a method and join its blocks."""
    blocks = list(METHODS[method](torch.as_tensor(base), shares, **options))
    assert all(block.dtype == torch.float32 for block in blocks)
    return torch.cat(blocks)


def share(values, weight=1.0, density=1.0, key=0):
    return Share(torch.as_tensor(values), weight, density, key)


def normal(seed, n=1000):
    return torch.randn(n, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=[4096, 1 << 18])
def block_elements(request, monkeypatch):
    """Small blocks too: no result may depend on where a tensor is cut."""
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", request.param)


ZERO = [0.0, 0.0, 0.0, 0.0]


# --- linear ---


def test_linear_is_the_weighted_mean():
    shares = [share([1.0, 2.0], 3.0), share([5.0, -2.0], 1.0)]
    assert run("linear", [9.0, 9.0], shares).tolist() == [2.0, 1.0]
    assert run("linear", [9.0, 9.0], shares, normalize=False).tolist() == [8.0, 4.0]


def test_linear_computes_in_float32():
    ones = torch.ones(1, dtype=torch.bfloat16)
    shares = [share(ones, 1.0), share(ones, 2**-12)]
    assert run("linear", ones, shares, normalize=False).item() == 1 + 2**-12


# --- slerp ---


def slow_slerp(base, other, t):
    """Shoemake's formula in float64."""
    a, b = base.double().numpy(), other.double().numpy()
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    if abs(cosine) > 0.9995:
        return (1 - t) * a + t * b
    angle = math.acos(cosine)
    return (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.5, 30.0])
def test_slerp_ends_at_the_models(noise):
    base, other = normal(0), normal(0) + noise * normal(1)
    assert torch.equal(run("slerp", base, [share(other)], t=0.0), base)
    assert torch.equal(run("slerp", base, [share(other)], t=1.0), other)


def test_slerp_of_a_right_angle_by_hand():
    half = run("slerp", [1.0, 0.0], [share([0.0, 1.0])], t=0.5)
    assert half.tolist() == pytest.approx([math.sqrt(0.5)] * 2)
    third = run("slerp", [1.0, 0.0], [share([0.0, 1.0])], t=1 / 3)
    assert third.tolist() == pytest.approx([math.cos(math.pi / 6), 0.5])


@pytest.mark.parametrize("t", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("noise", [0.02, 0.04, 1.0])  # cosines 0.9998, 0.9992, 0.7
def test_slerp_follows_the_formula(block_elements, noise, t):
    base, other = normal(0), normal(0) + noise * normal(1)
    expected = slow_slerp(base, other, t)
    got = run("slerp", base, [share(other)], t=t).numpy()
    np.testing.assert_allclose(got, expected, rtol=2e-6, atol=1e-7)


def test_slerp_falls_back_to_the_line_only_above_the_threshold():
    base = torch.tensor([1.0, 0.0])
    for cosine, straight in ((0.99951, True), (0.99949, False), (-0.99951, True)):
        other = torch.tensor([cosine, math.sqrt(1 - cosine**2)])
        line = (0.75 * base + 0.25 * other).norm()
        got = run("slerp", base, [share(other)], t=0.25).norm()
        assert (abs(float(got - line)) < 1e-6) == straight
        if not straight:
            assert float(got) == pytest.approx(1.0, abs=1e-6)  # it stays on the circle


def test_slerp_with_a_zero_tensor_is_finite():
    got = run("slerp", [0.0, 0.0], [share([1.0, 2.0])], t=0.5)
    assert torch.isfinite(got).all()


# --- task arithmetic ---


def test_task_arithmetic_by_hand():
    base = [1.0, 1.0]
    shares = [share([2.0, 1.0], 0.5), share([1.0, 5.0], 0.25)]
    assert run("task_arithmetic", base, shares).tolist() == [1.5, 2.0]
    assert run("task_arithmetic", base, shares, scale=2.0).tolist() == [2.0, 3.0]
    normalized = run("task_arithmetic", base, shares, normalize=True)
    assert normalized.tolist() == pytest.approx([1 + 0.5 / 0.75, 1 + 1 / 0.75])


def test_weights_that_sum_to_zero_divide_by_one():
    shares = [share([2.0], 1.0), share([5.0], -1.0)]
    assert run("task_arithmetic", [0.0], shares, normalize=True).tolist() == [-3.0]


# --- ties ---


def test_ties_by_hand():
    """Two vectors: one disagreement, one tie of signs, one agreement, one lone entry."""
    shares = [share([4.0, 1.0, 2.0, 0.0]), share([-1.0, -1.0, 4.0, -3.0])]
    assert run("ties", ZERO, shares).tolist() == [4.0, 1.0, 3.0, -3.0]
    assert run("ties", ZERO, shares, normalize=False).tolist() == [4.0, 1.0, 6.0, -3.0]


def test_ties_trims_to_the_largest_magnitudes():
    shares = [share([0.1, -4.0, 3.0, 0.2], density=0.5)]
    assert run("ties", ZERO, shares).tolist() == [0.0, -4.0, 3.0, 0.0]


def test_ties_keeps_the_first_of_equal_magnitudes(block_elements):
    shares = [share([1.0, -1.0, 2.0, 1.0, -1.0] * 10, density=0.5)]
    kept = run("ties", [0.0] * 50, shares).nonzero().flatten().tolist()
    twos = [index for index in range(50) if index % 5 == 2]
    ones = [index for index in range(50) if index % 5 != 2]
    assert kept == sorted(twos + ones[:15])


def test_ties_rounds_the_number_of_kept_elements_down():
    assert run("ties", ZERO, [share([1.0, 2.0, 3.0, 4.0], density=0.7)]).count_nonzero() == 2
    assert run("ties", ZERO, [share([1.0, 2.0, 3.0, 4.0], density=0.2)]).count_nonzero() == 0


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_ties_of_one_whole_vector_is_the_model_whatever_its_weight(weight):
    base, model = normal(0).bfloat16(), normal(1).bfloat16()
    got = run("ties", base, [share(model, weight)])
    assert torch.equal(got.bfloat16(), model)


def slow_trim(vector, density):
    """Keep the largest by a stable sort, so that of equal ones the first stay."""
    order = np.argsort(-np.abs(vector), kind="stable")
    kept = order[: int(density * len(vector))]
    out = np.zeros_like(vector)
    out[kept] = vector[kept]
    return out


def slow_elected_sum(vectors, weights, normalize):
    """Element by element, as the paper tells it."""
    out = np.zeros_like(vectors[0])
    for j in range(len(out)):
        weighted = [np.float32(w) * v[j] for w, v in zip(weights, vectors, strict=True)]
        sign = 1 if np.float32(sum(weighted)) >= 0 else -1
        agreeing = [i for i, value in enumerate(weighted) if value * sign > 0]
        total = sum((weighted[i] for i in agreeing), np.float32(0))
        divisor = sum(weights[i] for i in agreeing) if normalize and agreeing else 1.0
        out[j] = total / (divisor if abs(divisor) >= 1e-8 else 1.0)
    return out


def slow_ties(base, shares, normalize, scale):
    vectors = [
        slow_trim(each.values.float().numpy() - base.numpy(), each.density) for each in shares
    ]
    return base.numpy() + scale * slow_elected_sum(vectors, [s.weight for s in shares], normalize)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("num_models", [1, 2, 3])
def test_ties_is_the_paper_told_slowly(block_elements, num_models, normalize):
    base = normal(99)
    shares = [
        Share(base + normal(i), weight, density)
        for i, (weight, density) in enumerate([(0.5, 0.6), (0.7, 0.31), (-0.2, 1.0)][:num_models])
    ]
    got = run("ties", base, shares, normalize=normalize, scale=1.5)
    expected = slow_ties(base, shares, normalize, 1.5)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-5, atol=1e-6)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(-3, 3), min_size=1, max_size=40),
    st.floats(0.01, 1.0),
)
def test_trimming_is_exact_when_most_magnitudes_are_equal(numbers, density):
    vector = np.array(numbers, dtype=np.float32)
    got = run("ties", np.zeros_like(vector), [share(vector, density=density)])
    np.testing.assert_array_equal(got.numpy(), slow_trim(vector, density))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=40),
    st.floats(0.01, 1.0),
)
def test_trimming_is_exact_for_any_floats(numbers, density):
    vector = np.array(numbers, dtype=np.float32)
    got = run("ties", np.zeros_like(vector), [share(vector, density=density)])
    np.testing.assert_array_equal(got.numpy(), slow_trim(vector, density))


# --- dare ---


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
@pytest.mark.parametrize("rescale", ["density", "l1_norm", "none"])
def test_dare_is_the_paper_told_slowly(block_elements, method, rescale):
    base = normal(99)
    shares = [Share(base + normal(1), 0.5, 0.4, key=11), Share(base + normal(2), 0.8, 0.7, key=12)]
    vectors = []
    for each in shares:
        vector = (each.values - base).numpy()
        kept = vector * keep_mask(each.key, each.density, 0, len(base))
        factor = {
            "density": 1 / each.density,
            "l1_norm": np.abs(vector).sum() / np.abs(kept).sum(),
            "none": 1.0,
        }[rescale]
        vectors.append(kept * np.float32(factor))
    weights = [each.weight for each in shares]
    total = sum(w * v for w, v in zip(weights, vectors, strict=True))
    if method == "dare_ties":
        total = slow_elected_sum(vectors, weights, normalize=False)
    got = run(method, base, shares, rescale=rescale)
    np.testing.assert_allclose(got.numpy(), base.numpy() + total, rtol=1e-5, atol=2e-6)


def test_dare_keeps_the_mean_of_the_task_vector():
    n, density = 400_000, 0.3
    merged = run("dare_linear", torch.zeros(n), [Share(torch.ones(n), 1.0, density, key=5)])
    deviation = math.sqrt((1 - density) / density / n)
    assert abs(float(merged.double().mean()) - 1.0) < 5 * deviation
    assert set(merged.unique().tolist()) == {0.0, float(torch.tensor(1 / density))}


def test_dare_at_density_one_is_task_arithmetic():
    base, shares = normal(0), [share(normal(1), 0.5), share(normal(2), 0.25)]
    expected = run("task_arithmetic", base, shares)
    assert torch.equal(run("dare_linear", base, shares), expected)


def test_dare_rescaled_to_the_l1_norm_has_that_norm():
    base, model = normal(0), normal(1)
    got = run("dare_linear", base, [Share(model, 1.0, 0.2, key=3)], rescale="l1_norm")
    before, after = (float((each - base).abs().sum()) for each in (model, got))
    assert after == pytest.approx(before, rel=1e-4)


def test_dare_of_a_model_equal_to_its_base_is_the_base():
    for rescale in ("density", "l1_norm", "none"):
        got = run("dare_ties", normal(0), [Share(normal(0), 1.0, 0.5, key=3)], rescale=rescale)
        assert torch.equal(got, normal(0))


# --- all ---

ARGUMENTS = {"slerp": {"t": 0.4}, "dare_linear": {"rescale": "l1_norm"}}


@pytest.mark.parametrize("method", METHODS)
def test_threads_and_blocks_change_no_bit(method, monkeypatch):
    n = 70_000  # above the 32,768 elements from which PyTorch shares work among threads
    base = normal(0, n)
    shares = [Share(base + normal(1, n), 0.5, 0.5, key=8), Share(normal(2, n), 0.3, 0.4, key=9)]
    shares = shares[:1] if method == "slerp" else shares
    before = torch.get_num_threads()
    results = []
    try:
        for num_threads in (1, 2):
            torch.set_num_threads(num_threads)
            results.append(run(method, base, shares, **ARGUMENTS.get(method, {})))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])


@pytest.mark.parametrize("method", METHODS)
def test_inputs_are_left_as_they_are(method):
    base, other = normal(0), normal(1)
    run(method, base, [Share(other, 0.5, 0.5)], **ARGUMENTS.get(method, {}))
    assert torch.equal(base, normal(0))
    assert torch.equal(other, normal(1))
