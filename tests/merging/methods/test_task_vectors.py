"""Sums of task vectors against hand-worked cases and slow second implementations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from biomistral.merging.dropping import keep_mask
from biomistral.merging.methods import Share

ZERO = [0.0, 0.0, 0.0, 0.0]


# --- task arithmetic ---


def test_task_arithmetic_by_hand(run, share):
    base = [1.0, 1.0]
    shares = [share([2.0, 1.0], 0.5), share([1.0, 5.0], 0.25)]
    assert run("task_arithmetic", base, shares).tolist() == [1.5, 2.0]
    assert run("task_arithmetic", base, shares, scale=2.0).tolist() == [2.0, 3.0]
    normalized = run("task_arithmetic", base, shares, normalize=True)
    assert normalized.tolist() == pytest.approx([1 + 0.5 / 0.75, 1 + 1 / 0.75])


def test_weights_that_sum_to_zero_divide_by_one(run, share):
    shares = [share([2.0], 1.0), share([5.0], -1.0)]
    assert run("task_arithmetic", [0.0], shares, normalize=True).tolist() == [-3.0]


# --- ties ---


def test_ties_by_hand(run, share):
    """Two vectors: one disagreement, one tie of signs, one agreement, one lone entry."""
    shares = [share([4.0, 1.0, 2.0, 0.0]), share([-1.0, -1.0, 4.0, -3.0])]
    assert run("ties", ZERO, shares).tolist() == [4.0, 1.0, 3.0, -3.0]
    assert run("ties", ZERO, shares, normalize=False).tolist() == [4.0, 1.0, 6.0, -3.0]


def test_ties_trims_to_the_largest_magnitudes(run, share):
    shares = [share([0.1, -4.0, 3.0, 0.2], density=0.5)]
    assert run("ties", ZERO, shares).tolist() == [0.0, -4.0, 3.0, 0.0]


def test_ties_keeps_the_first_of_equal_magnitudes(run, share, block_elements):
    shares = [share([1.0, -1.0, 2.0, 1.0, -1.0] * 10, density=0.5)]
    kept = run("ties", [0.0] * 50, shares).nonzero().flatten().tolist()
    twos = [index for index in range(50) if index % 5 == 2]
    ones = [index for index in range(50) if index % 5 != 2]
    assert kept == sorted(twos + ones[:15])


def test_ties_rounds_the_number_of_kept_elements_down(run, share):
    assert run("ties", ZERO, [share([1.0, 2.0, 3.0, 4.0], density=0.7)]).count_nonzero() == 2
    assert run("ties", ZERO, [share([1.0, 2.0, 3.0, 4.0], density=0.2)]).count_nonzero() == 0


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_ties_of_one_whole_vector_is_the_model_whatever_its_weight(run, share, normal, weight):
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
def test_ties_is_the_paper_told_slowly(run, normal, block_elements, num_models, normalize):
    base = normal(99)
    shares = [
        Share(base + normal(i), weight, density)
        for i, (weight, density) in enumerate([(0.5, 0.6), (0.7, 0.31), (-0.2, 1.0)][:num_models])
    ]
    got = run("ties", base, shares, normalize=normalize, scale=1.5)
    expected = slow_ties(base, shares, normalize, 1.5)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-5, atol=1e-6)


# --- dare ---


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
@pytest.mark.parametrize("rescale", ["density", "l1_norm", "none"])
def test_dare_is_the_paper_told_slowly(run, normal, block_elements, method, rescale):
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


def test_dare_keeps_the_mean_of_the_task_vector(run):
    n, density = 400_000, 0.3
    merged = run("dare_linear", torch.zeros(n), [Share(torch.ones(n), 1.0, density, key=5)])
    deviation = math.sqrt((1 - density) / density / n)
    assert abs(float(merged.double().mean()) - 1.0) < 5 * deviation
    assert set(merged.unique().tolist()) == {0.0, float(torch.tensor(1 / density))}


def test_dare_at_density_one_is_task_arithmetic(run, share, normal):
    base, shares = normal(0), [share(normal(1), 0.5), share(normal(2), 0.25)]
    expected = run("task_arithmetic", base, shares)
    assert torch.equal(run("dare_linear", base, shares), expected)


def test_dare_rescaled_to_the_l1_norm_has_that_norm(run, normal):
    base, model = normal(0), normal(1)
    got = run("dare_linear", base, [Share(model, 1.0, 0.2, key=3)], rescale="l1_norm")
    before, after = (float((each - base).abs().sum()) for each in (model, got))
    assert after == pytest.approx(before, rel=1e-4)


def test_dare_of_a_model_equal_to_its_base_is_the_base(run, normal):
    for rescale in ("density", "l1_norm", "none"):
        got = run("dare_ties", normal(0), [Share(normal(0), 1.0, 0.5, key=3)], rescale=rescale)
        assert torch.equal(got, normal(0))


# --- breadcrumbs and della ---


@pytest.mark.parametrize("method", ["breadcrumbs", "breadcrumbs_ties"])
def test_breadcrumbs_without_outliers_are_trimmed_sums(run, normal, method):
    base = normal(0)
    shares = [Share(base + normal(i), 0.5 * i, 0.3 * i, gamma=0.0) for i in (1, 2)]
    got = run(method, base, shares)
    if method == "breadcrumbs_ties":
        assert torch.equal(got, run("ties", base, shares, normalize=False))
    else:
        vectors = [slow_trim((each.values - base).numpy(), each.density) for each in shares]
        expected = base.numpy() + 0.5 * vectors[0] + 1.0 * vectors[1]
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


def test_breadcrumbs_drop_outliers_by_hand(run, share):
    shares = [share([9.0, 0.1, 2.0, -3.0], 2.0, density=0.5, gamma=0.25)]
    assert run("breadcrumbs", ZERO, shares).tolist() == [0.0, 0.0, 4.0, -6.0]
    assert run("breadcrumbs_ties", ZERO, shares, scale=0.5).tolist() == [0.0, 0.0, 2.0, -3.0]


@pytest.mark.parametrize(
    ("della", "dare"), [("della_linear", "dare_linear"), ("della", "dare_ties")]
)
def test_della_without_a_window_is_dare(run, normal, della, dare):
    base = normal(0)
    shares = [Share(base + normal(i), 0.5 * i, 0.3 * i, key=i, row_elements=50) for i in (1, 2)]
    for rescale in ("density", "l1_norm", "none"):
        options = {"rescale": rescale, "normalize": False}
        assert torch.equal(run(della, base, shares, **options), run(dare, base, shares, **options))


# --- all sums of task vectors ---

SUMS = {
    "task_arithmetic": {},
    "ties": {"normalize": False},
    "dare_linear": {"rescale": "none"},
    "dare_ties": {"rescale": "l1_norm"},
    "breadcrumbs": {},
    "breadcrumbs_ties": {},
    "della": {"normalize": False},
    "della_linear": {},
}


def two(base, normal):
    numbers = {"density": 0.5, "gamma": 0.1, "epsilon": 0.2, "row_elements": 50}
    return [Share(base + normal(i), 0.4 * i, key=i, **numbers) for i in (1, 2)]


@pytest.mark.parametrize("method", SUMS)
def test_at_scale_zero_the_base_is_left(run, normal, method):
    got = run(method, normal(0), two(normal(0), normal), scale=0.0, **SUMS[method])
    assert torch.equal(got, normal(0))


@pytest.mark.parametrize("method", SUMS)
def test_scale_scales_what_is_added(run, normal, method):
    zero = torch.zeros(5000)
    once = run(method, zero, two(zero, normal), **SUMS[method])
    twice = run(method, zero, two(zero, normal), scale=2.0, **SUMS[method])
    assert torch.equal(twice, 2 * once)


@pytest.mark.parametrize("method", SUMS)
def test_the_order_of_two_models_does_not_matter(run, normal, method):
    shares = two(normal(0), normal)
    got = run(method, normal(0), shares, **SUMS[method])
    assert torch.equal(run(method, normal(0), shares[::-1], **SUMS[method]), got)


@pytest.mark.parametrize("method", SUMS)
def test_at_density_one_nothing_is_dropped(run, normal, method):
    base = normal(0)
    shares = [Share(base + normal(1), 0.5, gamma=0.1, epsilon=0.2)]
    expected = run("task_arithmetic", base, shares)
    torch.testing.assert_close(run(method, base, shares, **SUMS[method]), expected)


@pytest.mark.parametrize("method", SUMS)
def test_a_model_equal_to_the_base_adds_nothing(run, normal, method):
    got = run(method, normal(0), [Share(normal(0), 0.7, 0.5, key=3)], **SUMS[method])
    assert torch.equal(got, normal(0))
