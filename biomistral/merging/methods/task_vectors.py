"""Sums of task vectors: each model minus the base, made sparse, combined, added to the base.

For each block and in this order, each step one float32 operation: vector = values - base; sparsify
(select, x factor); x weight; elect signs (or not); add up from the first model on; / divisor;
x scale; base + result. The compiled kernel mirrors this, bit for bit; both may leave out a factor
or divisor of 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import reduce
from operator import add

import torch
from torch import Tensor

from biomistral.merging.methods.blocks import TINY, Share, Values, block, divided, places
from biomistral.merging.methods.sparsifiers import (
    Rescale,
    Sparsifier,
    crumb_keeper,
    dropper,
    keep_all,
    ranked_dropper,
    trimmer,
)


def task_arithmetic(
    base: Values, shares: Sequence[Share], *, normalize: bool = False, scale: float = 1.0
) -> Iterator[Tensor]:
    """Add the weighted task vectors (model minus base) to the base.

    Ilharco et al., "Editing models with task arithmetic", arXiv 2212.04089.
    """
    return _add_task_vectors(
        base, shares, [keep_all] * len(shares), elect=False, normalize=normalize, scale=scale
    )


def ties(
    base: Values, shares: Sequence[Share], *, normalize: bool = True, scale: float = 1.0
) -> Iterator[Tensor]:
    """Trim each task vector to its largest elements, elect a sign per element, add what agrees.

    Yadav et al., "TIES-Merging", arXiv 2306.01708.
    """
    trimmers = [trimmer(base, share) for share in shares]
    return _add_task_vectors(base, shares, trimmers, elect=True, normalize=normalize, scale=scale)


def dare_linear(
    base: Values,
    shares: Sequence[Share],
    *,
    normalize: bool = False,
    scale: float = 1.0,
    rescale: Rescale = "density",
) -> Iterator[Tensor]:
    """Drop elements of the task vectors at random, rescale the rest and add them up.

    Yu et al., "Language models are super Mario" (DARE), arXiv 2311.03099.
    """
    droppers = [dropper(base, share, rescale) for share in shares]
    return _add_task_vectors(base, shares, droppers, elect=False, normalize=normalize, scale=scale)


def dare_ties(
    base: Values,
    shares: Sequence[Share],
    *,
    normalize: bool = False,
    scale: float = 1.0,
    rescale: Rescale = "density",
) -> Iterator[Tensor]:
    """Drop as DARE does, then elect signs as TIES does."""
    droppers = [dropper(base, share, rescale) for share in shares]
    return _add_task_vectors(base, shares, droppers, elect=True, normalize=normalize, scale=scale)


def breadcrumbs(
    base: Values, shares: Sequence[Share], *, normalize: bool = False, scale: float = 1.0
) -> Iterator[Tensor]:
    """Drop the largest and the smallest elements of each task vector, add what is between.

    Davari and Belilovsky, "Model Breadcrumbs", arXiv 2312.06795. ``density`` is what is kept,
    ``gamma`` what is dropped at the top; at density 1 nothing is, as in mergekit.
    """
    keepers = [crumb_keeper(base, share) for share in shares]
    return _add_task_vectors(base, shares, keepers, elect=False, normalize=normalize, scale=scale)


def breadcrumbs_ties(
    base: Values, shares: Sequence[Share], *, normalize: bool = False, scale: float = 1.0
) -> Iterator[Tensor]:
    """Drop as breadcrumbs does, then elect signs as TIES does."""
    keepers = [crumb_keeper(base, share) for share in shares]
    return _add_task_vectors(base, shares, keepers, elect=True, normalize=normalize, scale=scale)


def della_linear(
    base: Values,
    shares: Sequence[Share],
    *,
    normalize: bool = False,
    scale: float = 1.0,
    rescale: Rescale = "density",
) -> Iterator[Tensor]:
    """Drop elements at random, small ones more likely, rescale the rest and add them up.

    Deep et al., "DELLA-Merging", arXiv 2406.11617; the ranks are per row, the inputs of one neuron.
    ``epsilon`` is half the width of the paper's window, as in mergekit; that rescales by the L1
    norm, the paper each element by its own chance (``rescale: density``).
    """
    droppers = [ranked_dropper(base, share, rescale) for share in shares]
    return _add_task_vectors(base, shares, droppers, elect=False, normalize=normalize, scale=scale)


def della(
    base: Values,
    shares: Sequence[Share],
    *,
    normalize: bool = True,
    scale: float = 1.0,
    rescale: Rescale = "density",
) -> Iterator[Tensor]:
    """Drop as ``della_linear`` does, then elect signs as TIES does."""
    droppers = [ranked_dropper(base, share, rescale) for share in shares]
    return _add_task_vectors(base, shares, droppers, elect=True, normalize=normalize, scale=scale)


def _add_task_vectors(
    base: Values,
    shares: Sequence[Share],
    sparsifiers: Sequence[Sparsifier],
    *,
    elect: bool,
    normalize: bool,
    scale: float,
) -> Iterator[Tensor]:
    """Add to the base: scale x sum of weight x sparse task vector, over the weights if asked."""
    weights = [share.weight for share in shares]
    # Alone, a vector wins every election; where it is zero its weight divides a zero.
    combine = _elected_sum if elect and len(shares) > 1 else _plain_sum
    for place in places(base):
        start = block(base, place)
        vectors = [
            sparsify(place, block(share.values, place) - start) * share.weight
            for share, sparsify in zip(shares, sparsifiers, strict=True)
        ]
        yield start + combine(vectors, weights, normalize) * scale


def _plain_sum(vectors: Sequence[Tensor], weights: Sequence[float], normalize: bool) -> Tensor:  # noqa: FBT001
    divisor = math.fsum(weights) if normalize else 1.0
    return divided(reduce(add, vectors), divisor if abs(divisor) >= TINY else 1.0)


def _elected_sum(vectors: Sequence[Tensor], weights: Sequence[float], normalize: bool) -> Tensor:  # noqa: FBT001
    """Add, element by element, the vectors that have the sign of the sum of all.

    With ``normalize`` the result is divided by the weights that took part, where they are not zero.
    """
    agreeing = elected(vectors)
    total = reduce(add, (torch.where(m, v, 0.0) for v, m in zip(vectors, agreeing, strict=True)))
    if not normalize:
        return total
    divisor = reduce(add, (selected(mask, w) for mask, w in zip(agreeing, weights, strict=True)))
    return total / torch.where(divisor.abs() >= TINY, divisor, 1.0)


def elected(vectors: Sequence[Tensor]) -> list[Tensor]:
    """Return which elements of each vector have the sign of the sum of all: booleans (b,).

    A sum of zero counts as positive; an element that is zero takes no part.
    """
    positive = reduce(add, vectors) >= 0  # (b,)
    return [torch.where(positive, vector > 0, vector < 0) for vector in vectors]


def selected(mask: Tensor, number: float) -> Tensor:
    """Return the number where the mask is true, else 0: float32 (b,)."""
    return torch.where(mask, torch.full((), number, dtype=torch.float32, device=mask.device), 0.0)
