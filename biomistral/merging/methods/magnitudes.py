"""Where the k largest magnitudes of a tensor end: exact, by counting, without a sort.

The bits of non-negative floats order as the floats do, so two counts of 16 bits each find the k-th
largest, and a third pass finds the last of its equals that still belongs to the k: of equal
magnitudes the first are kept. The compiled kernel mirrors these rules. Knows nothing about methods.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# Returns the block (b,) of float32 numbers of which magnitudes are ranked.
Block = Callable[[slice], Tensor]

_UPPER, _LOWER = 1 << 15, 1 << 16


class Cut(NamedTuple):
    """Kept are magnitudes above the threshold, and those equal to it up to an index (-1: none)."""

    threshold: float
    last_equal: int

    def keeps(self, place: slice, numbers: Tensor) -> Tensor:
        """Return which numbers (b,) of the block at ``place`` are on the upper side: booleans."""
        magnitude = numbers.abs()
        kept = magnitude > self.threshold
        if place.start <= self.last_equal:
            equal = magnitude == self.threshold
            equal[self.last_equal + 1 - place.start :] = False
            kept |= equal
        return kept


NOTHING = Cut(math.inf, -1)


def cut_after(num_kept: int, numbers: Block, places: Sequence[slice]) -> Cut:
    """Find the cut below the ``num_kept`` largest magnitudes; ``places`` cover all, in order."""
    if num_kept == 0:
        return NOTHING
    upper = torch.zeros(_UPPER, dtype=torch.int64)
    for place in places:
        upper += torch.bincount(_bits(numbers(place)) >> 16, minlength=_UPPER).cpu()
    upper_bin, num_left = _bin_of_rank(upper, num_kept)
    lower = torch.zeros(_LOWER, dtype=torch.int64)
    for place in places:
        bits = _bits(numbers(place))
        lower += torch.bincount(bits[bits >> 16 == upper_bin] & 0xFFFF, minlength=_LOWER).cpu()
    lower_bin, num_left = _bin_of_rank(lower, num_left)
    threshold_bits = upper_bin << 16 | lower_bin
    threshold = float(torch.tensor(threshold_bits, dtype=torch.int32).view(torch.float32))
    for place in places:
        equal = (_bits(numbers(place)) == threshold_bits).nonzero()
        if num_left <= len(equal):
            return Cut(threshold, place.start + int(equal[num_left - 1]))
        num_left -= len(equal)
    raise AssertionError("fewer elements than counted")


def _bits(numbers: Tensor) -> Tensor:
    return numbers.abs().view(torch.int32)


def _bin_of_rank(counts: Tensor, rank: int) -> tuple[int, int]:
    """Return the bin that holds the ``rank``-th largest element, and its rank within that bin."""
    from_top = counts.flip(0).cumsum(0)
    index = int(torch.searchsorted(from_top, rank))
    above = int(from_top[index - 1]) if index else 0
    return len(counts) - 1 - index, rank - above
