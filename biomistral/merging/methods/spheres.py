"""Interpolation along arcs: a tensor is one long vector, and models are points on a sphere.

Everything here is a weighted sum of the models, so the dot products of the models say all: they
are found in one pass and in float64, the factors follow from them, and a second pass adds up, each
step one float32 operation. The compiled kernel mirrors SLERP, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import reduce
from operator import add

from torch import Tensor

from biomistral.errors import ModelError
from biomistral.merging.methods.blocks import (
    TINY,
    Share,
    Values,
    block,
    cosine,
    inner_products,
    places,
    vector_block,
)

# Cosine above which SLERP counts two vectors as parallel (mergekit's number).
_PARALLEL = 0.9995
# 1 - cosine^2 below which NuSLERP does: what float32, in which mergekit computes it, can resolve.
_FLAT = 1e-7
# Length below which the mean of unit vectors is rounding noise and has no direction.
_NO_DIRECTION = 1e-7

Matrix = list[list[float]]


def slerp(base: Values, shares: Sequence[Share], *, t: float) -> Iterator[Tensor]:
    """Interpolate from ``base`` (t = 0) to the one share (t = 1) along the arc between them.

    Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985, on the tensor as one long
    vector. Nearly parallel or opposite vectors are interpolated along the straight line.
    """
    other = shares[0].values
    cos = cosine(base, other)
    factors = (1.0 - t, t) if abs(cos) > _PARALLEL else _arc(cos, t)
    return _weighted_sum(None, [base, other], factors)


def nuslerp(base: Values | None, shares: Sequence[Share]) -> Iterator[Tensor]:
    """Interpolate between two models along the arc, by their weights over the sum of both.

    With a base, between the task vectors, which are then added to it. The formula is that of SLERP
    (Shoemake, SIGGRAPH 1985); weights that sum to 0 count as equal. Goes by the straight line only
    where the arc has no more than rounding to it. mergekit does so only where its float32 cosine
    is +1 or -1, which for opposite vectors is chance and can leave noise.
    """
    one, other = (share.values for share in shares)
    weights = [share.weight for share in shares]
    total = math.fsum(weights)
    t = weights[1] / total if abs(total) >= 1e-6 else 0.5
    cos = cosine(one, other, base)
    factors = (1.0 - t, t) if 1.0 - cos * cos <= _FLAT else _arc(cos, t)
    return _weighted_sum(base, [one, other], factors)


def multislerp(
    base: Values | None,
    shares: Sequence[Share],
    *,
    normalize_weights: bool = True,
    eps: float = 1e-8,
) -> Iterator[Tensor]:
    """Go in the mean direction of the models, by the mean of their norms (both weighted).

    Goddard, "Multi-SLERP", https://goddard.blog/posts/multislerp-wow-what-a-cool-idea, in one step
    of the tangent space at the mean. The weighted tangent vectors at the mean sum to zero, so what
    is left of the formula is the mean itself; mergekit adds them up, and with them rounding noise.
    With a base, of the task vectors. One model is left as it is. Raises ``ModelError`` if the
    directions of three models or more cancel out; two are then added along the straight line, and
    so are vectors that are all zero.
    """
    vectors = [share.values for share in shares]
    if len(vectors) == 1:
        return _weighted_sum(None, vectors, [1.0])
    weights = [share.weight for share in shares]
    total = math.fsum(weights) if normalize_weights else 1.0
    weights = [weight / (total if abs(total) >= TINY else 1.0) for weight in weights]
    lengths, cosines = _lengths_and_cosines(vectors, base)
    directed = [w * n / (n + eps) for w, n in zip(weights, lengths, strict=True)]
    length = _length(directed, cosines)
    if length < max(eps, _NO_DIRECTION):
        if len(vectors) == 2 or max(lengths) <= TINY:
            return _weighted_sum(base, vectors, weights)
        raise ModelError(
            "multislerp: the weighted directions of the models cancel out in a tensor (their mean "
            f"has length {length:.1g}), so there is no mean direction; change the weights or use "
            "linear or task_arithmetic"
        )
    mean_length = math.fsum(w * n for w, n in zip(weights, lengths, strict=True))
    scale = mean_length / length
    factors = [w / (n + eps) * scale for w, n in zip(weights, lengths, strict=True)]
    return _weighted_sum(base, vectors, factors)


def karcher(
    _base: Values | None, shares: Sequence[Share], *, max_iter: int = 10, tol: float = 1e-5
) -> Iterator[Tensor]:
    """Find the point on the sphere nearest to all models, and give it the mean of their norms.

    Karcher, "Riemannian center of mass and mollifier smoothing", 1977; for models arXiv 2603.04972.
    The least sum of squared angles, by gradient descent from the plain mean of the directions. The
    search ends after ``max_iter`` steps or one shorter than ``tol`` (in radians). Models of norm up
    to ``tol`` have no direction; one opposite to the mean pulls nowhere. Every point on the way is
    a weighted sum of the models, so the search is over the weights.
    """
    lengths, cosines = _lengths_and_cosines([share.values for share in shares])
    directed = [index for index, length in enumerate(lengths) if length > tol]
    factors = [0.0] * len(shares)
    if directed:
        mean = _centre([[cosines[i][j] for j in directed] for i in directed], max_iter, tol)
        mean_length = math.fsum(lengths) / len(lengths)
        for index, part in zip(directed, mean, strict=True):
            factors[index] = part * (mean_length / lengths[index])
    return _weighted_sum(None, [share.values for share in shares], factors)


def _centre(cosines: Matrix, max_iter: int, tol: float) -> list[float]:
    """Return the factors of unit vectors whose sum is their centre of mass on the sphere."""
    num = len(cosines)
    mean = [1.0 / num] * num
    length = _length(mean, cosines)
    mean = [1.0, *[0.0] * (num - 1)] if length < tol else [part / length for part in mean]
    for _ in range(max_iter):
        tangent = [0.0] * num
        for index, row in enumerate(cosines):
            dot = max(-1.0, min(1.0, math.fsum(m * c for m, c in zip(mean, row, strict=True))))
            angle = math.acos(dot)
            if tol <= angle <= math.pi - tol:
                pull = angle / math.sin(angle) / num
                tangent = [each - pull * dot * m for each, m in zip(tangent, mean, strict=True)]
                tangent[index] += pull
        step = _length(tangent, cosines)
        if step < tol:
            break
        ahead = math.sin(step) / step
        mean = [math.cos(step) * m + ahead * v for m, v in zip(mean, tangent, strict=True)]
        length = _length(mean, cosines)
        mean = [part / length for part in mean] if length > tol else mean
    return mean


def _arc(cos: float, t: float) -> tuple[float, float]:
    """Return the factors of two vectors at a place between them on their arc."""
    angle = math.acos(cos)
    return math.sin((1.0 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


def _lengths_and_cosines(
    vectors: Sequence[Values], base: Values | None = None
) -> tuple[list[float], Matrix]:
    """Return the norms of the vectors, each minus the base, and the cosines of all pairs."""
    products = inner_products(vectors, base)
    lengths = [math.sqrt(products[i][i]) for i in range(len(vectors))]
    cosines = [
        [
            1.0 if i == j else product / (lengths[i] or 1.0) / (lengths[j] or 1.0)
            for j, product in enumerate(row)
        ]
        for i, row in enumerate(products)
    ]
    return lengths, cosines


def _length(factors: Sequence[float], cosines: Matrix) -> float:
    """Return the norm of a weighted sum of unit vectors. ``fsum`` rounds alike everywhere."""
    squared = math.fsum(
        one * other * cosine
        for one, row in zip(factors, cosines, strict=True)
        for other, cosine in zip(factors, row, strict=True)
    )
    return math.sqrt(max(0.0, squared))


def _weighted_sum(
    base: Values | None, vectors: Sequence[Values], factors: Sequence[float]
) -> Iterator[Tensor]:
    """Yield the sum of factor x vector; with a base, of the task vectors, added to the base."""
    for place in places(vectors[0]):
        parts = zip(vectors, factors, strict=True)
        total = reduce(add, (vector_block(base, each, place) * factor for each, factor in parts))
        yield total if base is None else block(base, place) + total
