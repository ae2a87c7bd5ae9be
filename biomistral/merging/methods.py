"""The merge methods: functions from the values of one tensor in several models to merged values.

Tensors are flat: n elements of any float type, the same element at the same place in all models.
A method yields its result as float32 blocks of shape (b,), in order, together (n,). All arithmetic
is in float32 and rounded once, by whoever stores the result; so the memory needed is that of a few
blocks. Every method here is one scheme: first find a few numbers for the whole tensor (an angle,
a threshold, a norm), then compute element by element.

Results are the same for any number of threads: no sum is split among threads, and no operation is
used whose vectorised and scalar forms may round differently.

Knows nothing about files, names, layers or settings; ``METHODS`` lists what there is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Literal

import torch
from torch import Tensor

from biomistral.merging.dropping import keep_mask

# Elements computed at once: one MB in float32, so that a few of them stay in a core's cache.
BLOCK_ELEMENTS = 1 << 18
# Elements added up by one thread without a pause; sums of such rows are then added in order.
_ROW_ELEMENTS = 256
# Cosine above which two vectors count as parallel (mergekit's number).
_PARALLEL = 0.9995
# Norms and sums of weights below this count as zero (mergekit's number).
_TINY = 1e-8


@dataclass(frozen=True)
class Share:
    """What one model brings to the merge of one tensor."""

    values: Tensor  # (n,)
    weight: float = 1.0
    density: float = 1.0  # share of the task vector that is kept, in (0, 1]
    key: int = 0  # of the random dropping, see dropping.py


# Takes the place of a block and the block of a task vector (b,); returns it with zeros in it.
Sparsifier = Callable[[slice, Tensor], Tensor]


# --- averages of models ---------------------------------------------------------------------------


def linear(_base: Tensor, shares: Sequence[Share], *, normalize: bool = True) -> Iterator[Tensor]:
    """Weighted sum of the models, over the sum of the weights if ``normalize``.

    Wortsman et al., "Model soups", arXiv 2203.05482. The base counts only if it is among the shares.
    """
    divisor = math.fsum(share.weight for share in shares) if normalize else 1.0
    for place in places(shares[0].values):
        total = reduce(add, (_block(share.values, place) * share.weight for share in shares))
        yield total / divisor


def slerp(base: Tensor, shares: Sequence[Share], *, t: float) -> Iterator[Tensor]:
    """Interpolate from ``base`` (t = 0) to the one share (t = 1) along the arc between them.

    Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985, on the tensor as one long
    vector. Nearly parallel or opposite vectors are interpolated along the straight line.
    """
    other = shares[0].values
    cosine = _cosine(base, other)
    if abs(cosine) > _PARALLEL:
        from_base, from_other = 1.0 - t, t
    else:
        angle = math.acos(cosine)
        from_base = math.sin((1.0 - t) * angle) / math.sin(angle)
        from_other = math.sin(t * angle) / math.sin(angle)
    for place in places(base):
        yield _block(base, place) * from_base + _block(other, place) * from_other


# --- sums of task vectors -------------------------------------------------------------------------


def task_arithmetic(
    base: Tensor, shares: Sequence[Share], *, normalize: bool = False, scale: float = 1.0
) -> Iterator[Tensor]:
    """Add the weighted task vectors (model minus base) to the base.

    Ilharco et al., "Editing models with task arithmetic", arXiv 2212.04089.
    """
    return _add_task_vectors(
        base, shares, [_keep_all] * len(shares), elect=False, normalize=normalize, scale=scale
    )


def ties(
    base: Tensor, shares: Sequence[Share], *, normalize: bool = True, scale: float = 1.0
) -> Iterator[Tensor]:
    """Trim each task vector to its largest elements, elect a sign per element, add what agrees.

    Yadav et al., "TIES-Merging", arXiv 2306.01708.
    """
    trimmers = [_trimmer(base, share) for share in shares]
    return _add_task_vectors(base, shares, trimmers, elect=True, normalize=normalize, scale=scale)


Rescale = Literal["density", "l1_norm", "none"]


def dare_linear(
    base: Tensor,
    shares: Sequence[Share],
    *,
    normalize: bool = False,
    scale: float = 1.0,
    rescale: Rescale = "density",
) -> Iterator[Tensor]:
    """Drop elements of the task vectors at random, rescale the rest and add them up.

    Yu et al., "Language models are super Mario" (DARE), arXiv 2311.03099.
    """
    droppers = [_dropper(base, share, rescale) for share in shares]
    return _add_task_vectors(base, shares, droppers, elect=False, normalize=normalize, scale=scale)


def dare_ties(
    base: Tensor,
    shares: Sequence[Share],
    *,
    normalize: bool = False,
    scale: float = 1.0,
    rescale: Rescale = "density",
) -> Iterator[Tensor]:
    """Drop as DARE does, then elect signs as TIES does."""
    droppers = [_dropper(base, share, rescale) for share in shares]
    return _add_task_vectors(base, shares, droppers, elect=True, normalize=normalize, scale=scale)


METHODS: dict[str, Callable[..., Iterator[Tensor]]] = {
    "linear": linear,
    "slerp": slerp,
    "task_arithmetic": task_arithmetic,
    "ties": ties,
    "dare_linear": dare_linear,
    "dare_ties": dare_ties,
}


def _add_task_vectors(
    base: Tensor,
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
        start = _block(base, place)
        vectors = [
            sparsify(place, _block(share.values, place) - start) * share.weight
            for share, sparsify in zip(shares, sparsifiers, strict=True)
        ]
        yield start + combine(vectors, weights, normalize) * scale


def _plain_sum(vectors: Sequence[Tensor], weights: Sequence[float], normalize: bool) -> Tensor:  # noqa: FBT001
    divisor = math.fsum(weights) if normalize else 1.0
    return reduce(add, vectors) / (divisor if abs(divisor) >= _TINY else 1.0)


def _elected_sum(vectors: Sequence[Tensor], weights: Sequence[float], normalize: bool) -> Tensor:  # noqa: FBT001
    """Add, element by element, the vectors that have the sign of the sum of all.

    A sum of zero counts as positive; an element that is zero takes no part. With ``normalize`` the
    result is divided by the weights that took part, where they are not zero.
    """
    positive = reduce(add, vectors) >= 0  # (b,)
    agreeing = [torch.where(positive, vector > 0, vector < 0) for vector in vectors]
    total = reduce(add, (vector * mask for vector, mask in zip(vectors, agreeing, strict=True)))
    if not normalize:
        return total
    divisor = reduce(add, (mask * weight for mask, weight in zip(agreeing, weights, strict=True)))
    return total / torch.where(divisor.abs() >= _TINY, divisor, 1.0)


# --- sparsifiers ----------------------------------------------------------------------------------


def _keep_all(_place: slice, vector: Tensor) -> Tensor:
    return vector


def _trimmer(base: Tensor, share: Share) -> Sparsifier:
    """Keep the int(density x n) elements of largest magnitude; of equal ones the first."""
    if share.density == 1:
        return _keep_all
    num_kept = int(share.density * base.numel())
    threshold, last_equal = _magnitude_cut(base, share.values, num_kept)

    def trim(place: slice, vector: Tensor) -> Tensor:
        magnitude = vector.abs()
        kept = magnitude > threshold
        if place.start <= last_equal:
            equal = magnitude == threshold
            equal[last_equal + 1 - place.start :] = False
            kept |= equal
        return vector * kept

    return trim


def _dropper(base: Tensor, share: Share, rescale: Rescale) -> Sparsifier:
    """Keep each element with chance ``density`` and make up for the loss as ``rescale`` says."""
    if share.density == 1:
        return _keep_all

    def kept(place: slice, vector: Tensor) -> Tensor:
        return vector * keep_mask(share.key, share.density, place.start, place.stop)

    factor = 1.0
    if rescale == "density":
        factor = 1.0 / share.density
    elif rescale == "l1_norm":
        factor = _l1_ratio(base, share.values, kept)
    return lambda place, vector: kept(place, vector) * factor


def _l1_ratio(base: Tensor, values: Tensor, sparsify: Sparsifier) -> float:
    """Return the L1 norm of the task vector over that of its sparse form; 1 if nothing is left."""
    whole = left = 0.0
    for place in places(base):
        vector = _block(values, place) - _block(base, place)
        whole += _sum(vector.abs())
        left += _sum(sparsify(place, vector).abs())
    return whole / left if left > _TINY else 1.0


# --- numbers for a whole tensor -------------------------------------------------------------------


def _magnitude_cut(base: Tensor, values: Tensor, num_kept: int) -> tuple[float, int]:
    """Find where the ``num_kept`` largest magnitudes of ``values - base`` end.

    Returns a threshold and an index: kept are all magnitudes above the threshold, and those equal
    to it up to the index (-1: none). Exact, by counting: the bits of non-negative floats order as
    the floats do, so the first count is by the upper 16 bits and the second by the lower.
    """
    if num_kept == 0:
        return math.inf, -1
    upper = torch.zeros(1 << 15, dtype=torch.int64)
    for place in places(base):
        upper += torch.bincount(_magnitude_bits(base, values, place) >> 16, minlength=1 << 15)
    upper_bin, num_left = _bin_of_rank(upper, num_kept)
    lower = torch.zeros(1 << 16, dtype=torch.int64)
    for place in places(base):
        bits = _magnitude_bits(base, values, place)
        lower += torch.bincount(bits[bits >> 16 == upper_bin] & 0xFFFF, minlength=1 << 16)
    lower_bin, num_left = _bin_of_rank(lower, num_left)
    threshold_bits = upper_bin << 16 | lower_bin
    for place in places(base):
        equal = (_magnitude_bits(base, values, place) == threshold_bits).nonzero()
        if num_left <= len(equal):
            threshold = torch.tensor(threshold_bits, dtype=torch.int32).view(torch.float32)
            return float(threshold), place.start + int(equal[num_left - 1])
        num_left -= len(equal)
    raise AssertionError("fewer elements than counted")


def _bin_of_rank(counts: Tensor, rank: int) -> tuple[int, int]:
    """Return the bin that holds the ``rank``-th largest element, and its rank within that bin."""
    from_top = counts.flip(0).cumsum(0)
    index = int(torch.searchsorted(from_top, rank))
    above = int(from_top[index - 1]) if index else 0
    return len(counts) - 1 - index, rank - above


def _magnitude_bits(base: Tensor, values: Tensor, place: slice) -> Tensor:
    return (_block(values, place) - _block(base, place)).abs().view(torch.int32)


def _cosine(one: Tensor, other: Tensor) -> float:
    """Cosine of the angle between two vectors; one that is nearly zero counts as it is."""
    dot = one_squared = other_squared = 0.0
    for place in places(one):
        x, y = _block(one, place), _block(other, place)
        dot += _sum(x * y)
        one_squared += _sum(x * x)
        other_squared += _sum(y * y)
    for norm in (math.sqrt(one_squared), math.sqrt(other_squared)):
        dot /= norm if norm > _TINY else 1.0
    return max(-1.0, min(1.0, dot))


def _sum(block: Tensor) -> float:
    """Sum of a float32 block, in float64 and in an order that no number of threads changes."""
    end = block.numel() // _ROW_ELEMENTS * _ROW_ELEMENTS
    rows = block[:end].view(-1, _ROW_ELEMENTS).sum(dim=1, dtype=torch.float64)
    # Below 32,768 elements PyTorch adds in one thread.
    return float(rows.sum()) + float(block[end:].sum(dtype=torch.float64))


def places(values: Tensor) -> Iterator[slice]:
    """Cut n elements into blocks, in order."""
    for start in range(0, values.numel(), BLOCK_ELEMENTS):
        yield slice(start, min(start + BLOCK_ELEMENTS, values.numel()))


def _block(values: Tensor, place: slice) -> Tensor:
    return values[place].to(torch.float32)
