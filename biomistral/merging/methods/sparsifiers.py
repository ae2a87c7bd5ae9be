"""Sparse task vectors: which elements of one are kept, and how the rest make up for the loss.

A sparsifier first finds a few numbers for the whole tensor (a threshold, a norm), then works block
by block. What is dropped becomes 0.0 by selection, never by multiplication (which would give -0.0).
The compiled kernel mirrors these rules, bit for bit. Knows nothing about how vectors are combined.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from biomistral.merging.dropping import keep_mask
from biomistral.merging.methods.blocks import TINY, Share, Values, add_up, places, vector_block
from biomistral.merging.methods.magnitudes import cut_after

# Takes the place of a block and the block of a task vector (b,); returns it with zeros in it.
Sparsifier = Callable[[slice, Tensor], Tensor]
# What kept elements are multiplied with: 1 / density, what restores the L1 norm, or nothing.
Rescale = Literal["density", "l1_norm", "none"]


def keep_all(_place: slice, vector: Tensor) -> Tensor:
    """Return the vector as it is."""
    return vector


def trimmer(base: Values, share: Share) -> Sparsifier:
    """Keep the int(density x n) elements of largest magnitude; of equal ones the first (TIES)."""
    if share.density == 1:
        return keep_all
    cut = cut_after(
        int(share.density * base.numel()),
        lambda place: vector_block(base, share.values, place),
        list(places(base)),
    )
    return lambda place, vector: torch.where(cut.keeps(place, vector), vector, 0.0)


def dropper(base: Values, share: Share, rescale: Rescale) -> Sparsifier:
    """Keep each element with chance ``density``, whatever its magnitude (DARE)."""
    if share.density == 1:
        return keep_all

    def drop(place: slice, vector: Tensor) -> Tensor:
        mask = torch.from_numpy(keep_mask(share.key, share.density, place.start, place.stop))
        return torch.where(mask.to(vector.device), vector, 0.0)

    factor = 1.0
    if rescale == "density":
        factor = 1.0 / share.density
    elif rescale == "l1_norm":
        factor = _l1_ratio(base, share.values, drop)
    return lambda place, vector: drop(place, vector) * factor


def _l1_ratio(base: Values, values: Values, sparsify: Sparsifier) -> float:
    """Return the L1 norm of the task vector over that of its sparse form; 1 if nothing is left."""
    whole = left = 0.0
    for place in places(base):
        vector = vector_block(base, values, place)
        whole = add_up(whole, vector.abs())
        left = add_up(left, sparsify(place, vector).abs())
    return whole / left if left > TINY else 1.0
