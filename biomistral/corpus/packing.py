"""Lay documents into rows of fixed length. Only lengths come in, only places go out.

``best_fit`` is best-fit decreasing (Ding et al. 2024, arXiv 2404.10830): a document longer than a
row is first cut into full rows and a rest; every piece then goes, longest first, into the row with
the least room that still holds it. Where more than a thousandth would be padding, some documents
that are longer than a row are cut once or twice more, to fill the rooms left in others. No document
that fits into a row is cut. ``concatenate`` joins
all in order and cuts at the row length, as BioMistral did. Both are deterministic and use every
token exactly once. Knows nothing about tokens or files.

Shapes: P pieces, R rows.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

# Documents, starts, sizes and rows of pieces.  # (P,) each.
Pieces = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]

_MOST_PADDING = 0.001  # of all places
_LEAST_PART = 64  # tokens, or a sixteenth of a row: what is less says little by itself


@dataclass(frozen=True, slots=True)
class Packing:
    """Pieces in row order; row r holds the pieces ``ends[r]`` to ``ends[r + 1]``."""

    documents: NDArray[np.int64]  # (P,) place of the document in the lengths given
    starts: NDArray[np.int64]  # (P,) first token of the piece in its document
    lengths: NDArray[np.int64]  # (P,) in tokens
    ends: NDArray[np.int64]  # (R + 1,) first 0

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        """Rows as lists of (document, start, length)."""
        for first, last in zip(self.ends[:-1], self.ends[1:], strict=True):
            part = slice(first, last)
            columns = (self.documents[part], self.starts[part], self.lengths[part])
            yield list(zip(*(column.tolist() for column in columns), strict=True))


def pack(
    lengths: Sequence[int] | NDArray[np.int64],
    row_length: int,
    method: Literal["best_fit", "concatenate"],
) -> Packing:
    """Lay documents of ``lengths`` tokens (0 takes no place) into rows of ``row_length`` tokens."""
    sizes = np.asarray(lengths, dtype=np.int64)
    return (best_fit if method == "best_fit" else concatenate)(sizes, row_length)


def best_fit(lengths: NDArray[np.int64], row_length: int) -> Packing:
    """Pack without a cut that length does not force; longest pieces first, ties in order."""
    documents, starts, sizes = _cut(lengths, first_room=row_length, row_length=row_length)
    order = np.argsort(-sizes, kind="stable")
    rows = np.empty(len(sizes), dtype=np.int64)
    rows[order] = _best_fit_rows(sizes[order].tolist(), row_length)
    may_be_cut = lengths[documents] > row_length
    documents, starts, sizes, rows = _closed_up(
        (documents, starts, sizes, rows), may_be_cut, row_length
    )
    order = np.argsort(-sizes, kind="stable")
    by_row = order[np.argsort(rows[order], kind="stable")]
    counts = np.bincount(rows, minlength=0) if len(rows) else np.empty(0, dtype=np.int64)
    return Packing(documents[by_row], starts[by_row], sizes[by_row], _ends(counts))


def concatenate(lengths: NDArray[np.int64], row_length: int) -> Packing:
    """Join the documents in order and cut at the row length; the last row may be short."""
    before = np.cumsum(lengths) - lengths
    documents, starts, sizes = _cut(
        lengths, first_room=row_length - before % row_length, row_length=row_length
    )
    rows = (before[documents] + starts) // row_length
    counts = np.bincount(rows) if len(rows) else np.empty(0, dtype=np.int64)
    return Packing(documents, starts, sizes, _ends(counts))


def _cut(
    lengths: NDArray[np.int64], first_room: NDArray[np.int64] | int, row_length: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Documents, starts and lengths of the pieces: one of ``first_room``, then full rows."""
    first = np.minimum(lengths, first_room)
    counts = (first > 0) + -(-(lengths - first) // row_length)
    documents = np.repeat(np.arange(len(lengths)), counts)
    nth = np.arange(len(documents)) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = np.where(nth == 0, 0, first[documents] + (nth - 1) * row_length)
    room = np.where(nth == 0, first[documents], row_length)
    return documents, starts, np.minimum(room, lengths[documents] - starts)


def _best_fit_rows(sizes: list[int], row_length: int) -> list[int]:
    """Row of each piece, pieces longest first.

    Open rows are kept by the room left in them. A bit set of the rooms that occur, as one long
    integer, finds the least room that is enough in one step: 1.5 million pieces take seconds.
    """
    open_rows: list[list[int]] = [[] for _ in range(row_length + 1)]
    rooms = 0
    num_rows = 0
    rows: list[int] = []
    for size in sizes:
        enough = rooms >> size
        if enough:
            room = size + (enough & -enough).bit_length() - 1
            row = open_rows[room].pop()
            if not open_rows[room]:
                rooms &= ~(1 << room)
        else:
            room, row = row_length, num_rows
            num_rows += 1
        rows.append(row)
        left = room - size
        if left:
            open_rows[left].append(row)
            rooms |= 1 << left
    return rows


def _closed_up(pieces: Pieces, may_be_cut: NDArray[np.bool_], row_length: int) -> Pieces:
    """The pieces in fewer rows, if too much was padding.

    The emptiest rows of which every piece may be cut are given up; what was in them goes into the
    largest rooms of the other rows, cut to fit.
    """
    documents, starts, sizes, rows = pieces
    rooms = row_length - np.bincount(rows, weights=sizes).astype(np.int64)
    too_much = int(rooms.sum()) - int(_MOST_PADDING * len(rooms) * row_length)
    fixed = np.bincount(rows, weights=~may_be_cut) > 0
    emptiest = np.argsort(-rooms, kind="stable")
    givers = emptiest[~fixed[emptiest]][: max(0, -(-too_much // row_length))]
    least = max(_LEAST_PART, row_length // 16)
    takers = emptiest[(rooms[emptiest] >= least) & ~np.isin(emptiest, givers)]
    open_rows = [(-room, row) for room, row in zip(rooms[takers].tolist(), takers.tolist())]  # noqa: B905
    gone: list[int] = []
    parts: list[tuple[int, int, int, int]] = []
    for giver in givers.tolist():
        own = np.flatnonzero(rows == giver).tolist()
        laid = [_spread(int(sizes[piece]), open_rows, least) for piece in own]
        if not all(laid):
            break
        gone += own
        for piece, places in zip(own, laid, strict=True):
            start = int(starts[piece])
            for row, size in places:
                parts.append((int(documents[piece]), start, size, row))
                start += size
    if not gone:
        return pieces
    kept = (np.delete(column, gone) for column in pieces)
    added = np.array(parts, dtype=np.int64).T
    documents, starts, sizes, rows = map(np.concatenate, zip(kept, added, strict=True))
    return documents, starts, sizes, np.unique(rows, return_inverse=True)[1]


def _spread(size: int, open_rows: list[tuple[int, int]], least: int) -> list[tuple[int, int]]:
    """Rows that a piece goes to, with the size of each part; none if there is no room.

    ``open_rows`` is a heap of (-room, row), and changed. Of a piece that is cut, no part has less
    than ``least`` tokens.
    """
    places: list[tuple[int, int]] = []
    while size:
        if not open_rows:
            return []
        room, row = heapq.heappop(open_rows)
        part = min(size, -room)
        if 0 < size - part < least:
            part = size - least
            if part < least:
                return []
        places.append((row, part))
        size -= part
        if -room - part >= least:
            heapq.heappush(open_rows, (room + part, row))
    return places


def _ends(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts, dtype=np.int64)])
