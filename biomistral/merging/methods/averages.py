"""Averages of models, element by element.

Each element-wise step is one float32 operation, in the order of the code; the compiled kernel
mirrors ``linear`` and ``passthrough``, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import combinations
from operator import add

import torch
from torch import Tensor

from biomistral.merging.methods.blocks import (
    TINY,
    Share,
    Values,
    block,
    divided,
    inner_products,
    places,
)

# Differences below this count as this, denominators below it as zero (mergekit's number).
_SMALL = 1e-6


def linear(
    _base: Values | None, shares: Sequence[Share], *, normalize: bool = True
) -> Iterator[Tensor]:
    """Weighted sum of the models, over the sum of the weights if ``normalize``.

    Wortsman et al., "Model soups", arXiv 2203.05482. The base counts only if it is among the shares.
    """
    divisor = math.fsum(share.weight for share in shares) if normalize else 1.0
    for place in places(shares[0].values):
        total = reduce(add, (block(share.values, place) * share.weight for share in shares))
        yield divided(total, divisor)


def passthrough(_base: Values | None, shares: Sequence[Share]) -> Iterator[Tensor]:
    """Yield the one model as it is, in its own type and bit for bit; in float32 if weighted."""
    (share,) = shares
    for place in places(share.values):
        unchanged = share.weight == 1
        yield share.values[place] if unchanged else block(share.values, place) * share.weight


def model_stock(base: Values, shares: Sequence[Share]) -> Iterator[Tensor]:
    """Interpolate between the base and the mean of the models by the angle between task vectors.

    Jang et al., "Model Stock", arXiv 2403.19522, equation 3 for N models, of which there are two at
    least: t = N c / (1 + (N - 1) c), where c is the mean cosine of all pairs. Where that
    denominator vanishes the base is kept. Unlike in mergekit, the cosine of short task vectors
    (product of norms below 1e-6) is a cosine too, not one that shrinks towards 0.
    """
    num_models = len(shares)
    products = inner_products([share.values for share in shares], base)
    lengths = [math.sqrt(products[i][i]) for i in range(num_models)]
    lengths = [length if length > TINY else 1.0 for length in lengths]
    cosines = [
        max(-1.0, min(1.0, products[i][j] / lengths[i] / lengths[j]))
        for i, j in combinations(range(num_models), 2)
    ]
    cosine = math.fsum(cosines) / len(cosines)
    denominator = 1.0 + (num_models - 1) * cosine
    t = num_models * cosine / denominator if abs(denominator) >= _SMALL else 0.0
    for place in places(base):
        total = reduce(add, (block(share.values, place) for share in shares))
        mean = divided(total, num_models)
        yield mean * t + block(base, place) * (1.0 - t)


def nearswap(base: Values, shares: Sequence[Share], *, t: float) -> Iterator[Tensor]:
    """Take the other model where it is within ``t`` of the base, and less of it further away.

    alchemonaut, https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001: the share of the
    other model is t over the distance of the two elements, 1 at most.
    """
    other = shares[0].values
    for place in places(base):
        start, end = block(base, place), block(other, place)
        distance = (start - end).abs().clamp(min=_SMALL)
        # Not ``t / distance``: PyTorch computes that as t x (1 / distance), rounded twice.
        fraction = torch.full_like(distance, t).div(distance).clamp(0.0, 1.0)
        yield end * fraction + start * (1.0 - fraction)
