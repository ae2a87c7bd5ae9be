"""Rows of an embedding in another order, with rows of other models where one lacks a token.

Knows nothing about tokens or tokenizers; ``vocabularies`` decides what goes where. PyTorch is loaded
when values are asked for. V: rows of the output, W: elements of a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from biomistral.models.safetensors_files import StoredTensor

if TYPE_CHECKING:
    from torch import Tensor

# Values of ``RowMap.rows`` that are no rows.
LACKING = -1  # the model lacks the token
UNUSED = -2  # no token has this id

# Rows added up at once for the mean of all rows.
_ROWS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class RowMap:
    """How the rows of the output are made of rows of one model's tensor, and of others' tensors."""

    own: StoredTensor
    rows: NDArray[np.int64]  # (V,): a row of ``own``, LACKING or UNUSED
    donors: tuple[StoredTensor, ...]
    # (number of lacking rows, number of donors): for each lacking row in order, a row of each donor
    # or -1. The lacking row is their mean; an unused row is the mean of all rows that are used.
    donor_rows: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the mapped tensor."""
        return (len(self.rows), *self.own.shape[1:])


class MappedRows:
    """The values of a mapped tensor as one float32 vector (V x W,), made a block at a time.

    ``read`` gives the values of a stored tensor, best mapped from its file: only the rows that a
    block needs are touched, and no more than a block is held. Usable from several threads.
    """

    def __init__(self, row_map: RowMap, read: Callable[[StoredTensor], Tensor]) -> None:
        self._map = row_map
        self._width = math.prod(row_map.own.shape[1:])
        self._own = read(row_map.own).reshape(-1, self._width)
        self._donors = [read(donor).reshape(-1, self._width) for donor in row_map.donors]
        self._lacking = np.flatnonzero(row_map.rows == LACKING)

    def numel(self) -> int:
        """Return the number of elements."""
        return len(self._map.rows) * self._width

    def __getitem__(self, place: slice) -> Tensor:
        """Return the elements of a slice without a step (b,)."""
        import torch

        start, stop, step = place.indices(self.numel())
        assert step == 1, "blocks have no step"
        first, last = start // self._width, -(-max(stop, start) // self._width)
        rows = self._used_rows(first, last)  # (rows of the block, W)
        unused = self._map.rows[first:last] == UNUSED
        if unused.any():
            rows[torch.from_numpy(unused)] = self._mean_row
        return rows.view(-1)[start - first * self._width : stop - first * self._width]

    def _used_rows(self, first: int, last: int) -> Tensor:
        """Return the rows ``first`` to ``last`` of the output; unused ones hold anything."""
        import torch

        wanted = self._map.rows[first:last]
        if wanted.size and wanted[0] >= 0 and (np.diff(wanted) == 1).all():
            return self._own[wanted[0] : wanted[-1] + 1].float()  # as most are: four times faster
        rows = self._own[torch.from_numpy(np.maximum(wanted, 0))].float()
        begin, end = np.searchsorted(self._lacking, (first, last))
        if begin < end:
            rows[torch.from_numpy(wanted == LACKING)] = self._given(int(begin), int(end))
        return rows

    def _given(self, begin: int, end: int) -> Tensor:
        """Return the means of the donors' rows for the lacking rows ``begin`` to ``end``."""
        import torch

        donor_rows = torch.from_numpy(self._map.donor_rows[begin:end])
        has = donor_rows >= 0  # (lacking, donors)
        total = torch.zeros(end - begin, self._width)
        for index, donor in enumerate(self._donors):
            there = has[:, index]
            total[there] += donor[donor_rows[there, index]].float()
        return total / has.sum(dim=1, keepdim=True)

    @cached_property
    def _mean_row(self) -> Tensor:
        """Mean of the used rows (W,): a new row at the mean of a head takes little from the others.

        Hewitt, "Initializing new word embeddings for pretrained language models", 2021. In float64
        and row by row, so that it is the same for any number of threads.
        """
        import torch

        used = self._map.rows != UNUSED
        total = np.zeros(self._width)
        for first in range(0, len(used), _ROWS_AT_ONCE):
            last = min(first + _ROWS_AT_ONCE, len(used))
            rows = self._used_rows(first, last).numpy()[used[first:last]]
            total += np.add.reduce(rows.astype(np.float64), axis=0)
        return torch.from_numpy((total / used.sum()).astype(np.float32))
