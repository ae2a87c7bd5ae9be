"""Blocks of flat tensors, and sums over them that come out the same on every machine.

What a model brings to the merge of one tensor is a ``Share``; its values are read block by block
in float32. A sum over a tensor is in float64 and in one fixed order: chunks of 4,096 elements from
the start of the tensor, the last filled up with zeros; in each chunk 64 lanes, of which lane j adds
elements j, 64 + j, 128 + j, ... to 0 in order; the lanes folded by halves (lane j += lane j + 32,
then 16, 8, 4, 2, 1); the chunks added from left to right. The compiled kernel mirrors these rules,
bit for bit.

Shapes: n elements of a tensor, b of them in a block. Knows nothing about any method.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

# Elements computed at once: one MB in float32, so that a few of them stay in a core's cache.
BLOCK_ELEMENTS = 1 << 18
# On a GPU: as many as keep it busy; 64 MB in float32.
GPU_BLOCK_ELEMENTS = 1 << 24
# Norms and sums of weights below this count as zero (mergekit's number).
TINY = 1e-8

_LANES = 64
_CHUNK_ELEMENTS = 4096  # a block has a multiple of it, so no chunk lies in two blocks


class Values(Protocol):
    """The values of one tensor, (n,) of any float type: a tensor, or something read when sliced."""

    def numel(self) -> int:
        """Return n."""

    def __getitem__(self, place: slice, /) -> Tensor:
        """Return a block of values: (b,)."""


@dataclass(frozen=True)
class Share:
    """What one model brings to the merge of one tensor."""

    values: Values  # (n,)
    weight: float = 1.0
    density: float = 1.0  # share of the task vector that is kept, in (0, 1]
    key: int = 0  # of the random dropping, see dropping.py
    gamma: float = 0.0  # share of largest elements that breadcrumbs drop
    epsilon: float = 0.0  # DELLA keeps with a chance of density - epsilon to density + epsilon
    row_elements: int = 0  # length of a row, the last number of the shape; 0: all is one row


def places(values: Values) -> Iterator[slice]:
    """Cut n elements into blocks, in order."""
    on_gpu = isinstance(values, Tensor) and values.device.type != "cpu"
    size = GPU_BLOCK_ELEMENTS if on_gpu else BLOCK_ELEMENTS
    for start in range(0, values.numel(), size):
        yield slice(start, min(start + size, values.numel()))


def block(values: Values, place: slice) -> Tensor:
    """Return the values at one place in float32: (b,)."""
    return values[place].to(torch.float32)


def vector_block(base: Values | None, values: Values, place: slice) -> Tensor:
    """Return the task vector, values minus base, at one place: (b,). Without a base the values."""
    own = block(values, place)
    return own if base is None else own - block(base, place)


def divided(values: Tensor, divisor: float) -> Tensor:
    """Return values / divisor, (b,), each rounded once.

    PyTorch divides by a plain number only on a CPU; on a GPU it multiplies by the reciprocal.
    """
    return values / torch.full((), divisor, dtype=values.dtype, device=values.device)


def add_up(total: float, terms: Tensor) -> float:
    """Add the terms (b,) of the next block to a running sum, in the order told above."""
    padded = F.pad(terms.to(torch.float64), (0, -terms.numel() % _CHUNK_ELEMENTS))
    chunks = padded.view(-1, _CHUNK_ELEMENTS // _LANES, _LANES)
    lanes = torch.zeros_like(chunks[:, 0])  # (chunks, 64)
    for row in chunks.unbind(1):
        lanes += row
    while (half := lanes.shape[1] // 2) > 0:
        lanes = lanes[:, :half] + lanes[:, half:]
    for chunk in (
        lanes.flatten().cpu().tolist()
    ):  # the built-in sum would compensate from Python 3.12 on
        total += chunk
    return total


def inner_products(vectors: Sequence[Values], base: Values | None = None) -> list[list[float]]:
    """Return the dot product of each vector (minus the base) with each: symmetric, (k, k)."""
    num = len(vectors)
    products = [[0.0] * num for _ in range(num)]
    for place in places(vectors[0]):
        # A product of two float32 values is exact in float64.
        blocks = [vector_block(base, vector, place).to(torch.float64) for vector in vectors]
        for i in range(num):
            for j in range(i, num):
                products[i][j] = products[j][i] = add_up(products[i][j], blocks[i] * blocks[j])
    return products


def cosine(one: Values, other: Values, base: Values | None = None) -> float:
    """Cosine of the angle between two vectors, each minus the base if there is one.

    A vector that is nearly zero counts as it is, not by its direction.
    """
    (one_squared, dot), (_, other_squared) = inner_products([one, other], base)
    for norm in (math.sqrt(one_squared), math.sqrt(other_squared)):
        dot /= norm if norm > TINY else 1.0
    return max(-1.0, min(1.0, dot))
