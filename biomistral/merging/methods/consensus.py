"""SCE: select the elements on which models differ, weigh models by size, erase minority signs.

Wan et al., "FuseChat: Knowledge fusion of chat models", arXiv 2408.07990.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import reduce
from operator import add

import torch
from torch import Tensor

from biomistral.merging.methods.blocks import (
    Share,
    Values,
    add_up,
    block,
    divided,
    places,
    vector_block,
)
from biomistral.merging.methods.magnitudes import Cut, cut_after
from biomistral.merging.methods.task_vectors import elected, selected

# Sum of mean squares below which models weigh the same, and least divisor (mergekit's number).
_SMALL = 1e-6


def sce(base: Values, shares: Sequence[Share], *, select_topk: float = 1.0) -> Iterator[Tensor]:
    """Add the task vectors, weighted by their mean squares, where they agree with the majority.

    Only the ``select_topk`` fraction of largest variance among the models changes (of the elements
    that vary at all; of equal ones the first); with one model none does. Weights
    are the mean squares of what was selected over their sum; as in mergekit, all weigh the same if
    that sum is below 1e-6, so task vectors of elements below about 1e-3, which is common in
    fine-tuning, are not weighted.
    """
    cut = _selection(base, shares, select_topk) if select_topk < 1 else None
    weights = _weights(base, shares, cut)
    for place in places(base):
        vectors = _selected_vectors(base, shares, cut, place)
        agreeing = elected(vectors)
        terms = [
            (torch.where(mask, vector * weight, 0.0), selected(mask, weight))
            for vector, mask, weight in zip(vectors, agreeing, weights, strict=True)
        ]
        total = reduce(add, (term for term, _ in terms))
        divisor = reduce(add, (part for _, part in terms))
        yield block(base, place) + total / divisor.clamp(min=_SMALL)


def _selection(base: Values, shares: Sequence[Share], select_topk: float) -> Cut:
    """Find the cut below the elements of largest variance."""
    every = list(places(base))

    def variance(place: slice) -> Tensor:
        return _variance([vector_block(base, share.values, place) for share in shares])

    num_varying = sum(int(variance(place).count_nonzero()) for place in every)
    return cut_after(int(select_topk * num_varying), variance, every)


def _variance(vectors: Sequence[Tensor]) -> Tensor:
    """Return the variance (over n, not n - 1) of each element among the models: (b,)."""
    mean = divided(reduce(add, vectors), len(vectors))
    deviations = [vector - mean for vector in vectors]
    return divided(reduce(add, (each * each for each in deviations)), len(vectors))


def _selected_vectors(
    base: Values, shares: Sequence[Share], cut: Cut | None, place: slice
) -> list[Tensor]:
    vectors = [vector_block(base, share.values, place) for share in shares]
    if cut is None:
        return vectors
    kept = cut.keeps(place, _variance(vectors))
    return [torch.where(kept, vector, 0.0) for vector in vectors]


def _weights(base: Values, shares: Sequence[Share], cut: Cut | None) -> list[float]:
    """Return the mean square of each selected task vector over the sum of all models'."""
    squares = [0.0] * len(shares)
    for place in places(base):
        for index, vector in enumerate(_selected_vectors(base, shares, cut, place)):
            exact = vector.to(torch.float64)
            squares[index] = add_up(squares[index], exact * exact)
    means = [total / max(base.numel(), 1) for total in squares]
    whole = math.fsum(means)
    return [1.0 / len(means) if whole < _SMALL else mean / whole for mean in means]
