"""Which row comes when: the whole run as one line of rows, known before it starts.

The line depends on the numbers of rows, the shares and the seed, and on nothing else; so a resumed
run, and a run in several processes, see the same rows in the same steps. Knows nothing about tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from biomistral.errors import InputError
from biomistral.models.rows import PackedRows
from biomistral.training.collation import Row


@dataclass(frozen=True)
class Line:
    """Rows in the order of training: the corpus of each, and its row there."""

    corpora: NDArray[np.int16]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)


def line_up(num_rows: Sequence[int], shares: Sequence[float], num_places: int, seed: int) -> Line:
    """Fill ``num_places`` with rows of corpora that have ``num_rows`` each, by their ``shares``.

    Each corpus is gone through from end to end, in a new random order each time. Corpora take turns
    so that at any place each has had its share to within one row.
    """
    turns = _turns(shares, num_places)
    rows = np.empty(num_places, dtype=np.int64)
    for corpus, size in enumerate(num_rows):
        own = turns == corpus
        rows[own] = _shuffled(size, int(own.sum()), (seed, corpus))
    return Line(turns, rows)


def _turns(shares: Sequence[float], num_places: int) -> NDArray[np.int16]:
    """Corpus of each place: always the one that is furthest behind its share, of equals the first."""
    turns = np.zeros(num_places, dtype=np.int16)
    if len(shares) == 1:
        return turns
    behind = [0.0] * len(shares)
    for place in range(num_places):
        for corpus, share in enumerate(shares):
            behind[corpus] += share
        chosen = behind.index(max(behind))
        behind[chosen] -= 1
        turns[place] = chosen
    return turns


def _shuffled(size: int, number: int, seed: tuple[int, int]) -> NDArray[np.int64]:
    """The first ``number`` of endless passes over ``range(size)``, each in an order of its own."""
    passes = [
        np.random.default_rng((*seed, epoch)).permutation(size)
        for epoch in range(math.ceil(number / size))
    ]
    joined: NDArray[np.int64] = np.concatenate([np.empty(0, dtype=np.int64), *passes])
    return joined[:number]


class RowsInLine(Dataset[Row]):
    """The rows of a run as a data loader wants them, filled up to whole steps of all processes.

    What fills are rows of padding, in which nothing is asked for: they change no loss.
    """

    def __init__(self, corpora: Sequence[PackedRows], line: Line, length: int) -> None:
        self.corpora = corpora
        self.line = line
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Row:
        if index >= self.length:
            raise IndexError(index)
        if index >= len(self.line):
            return np.zeros(self.corpora[0].sequence_length, dtype=np.int64), ()
        corpus = self.corpora[int(self.line.corpora[index])]
        return corpus[int(self.line.rows[index])]


def check_same_length(corpora: Sequence[PackedRows]) -> None:
    """Raise ``InputError`` unless the rows of all corpora are equally long and there are some."""
    for rows in corpora:
        if len(rows) == 0:
            raise InputError(
                f"{rows.folder}: has no rows to train on; see the reasons for dropped documents in "
                "its manifest"
            )
        if rows.sequence_length != corpora[0].sequence_length:
            raise InputError(
                f"{rows.folder}: has rows of {rows.sequence_length} tokens, those of "
                f"{corpora[0].folder.name} have {corpora[0].sequence_length}; corpora that are "
                "mixed need one sequence_length"
            )
