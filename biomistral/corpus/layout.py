"""Lay the tokens of documents into rows, part by part, and write them to one file.

A part is some thousand documents in a row of the order asked for: they are packed among themselves,
so any process can write the rows of a part alone, at their own place in the file, and reads few
files for it. A part is done when its lines of ``rows.parquet`` are there. Knows nothing about which
documents there are, or why in this order.

Shapes: N documents, P pieces of a part, R rows of a part, T sequence length.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from biomistral import artifacts
from biomistral.corpus.packing import pack
from biomistral.models.rows import ROWS, Split, row_table

PART_DOCUMENTS = 16_384  # 100 million tokens of articles; padding is as low as over all
_ROWS_AT_A_TIME = 4_096  # in memory: 16 MB of rows of 2,048
_MOST_OPEN_FILES = 256  # a mapped file keeps a handle

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Stored:
    """Where the tokens of all documents are.  # (N,) each."""

    files: Places  # place in the list of files
    starts: Places  # first token in the file
    lengths: Places  # in tokens
    lines: Places  # in documents.parquet


@dataclass(frozen=True)
class Part:
    """Rows to write together, and the pieces they are made of."""

    number: int
    split: Split
    first_row: int
    ends: Places  # (R + 1,) row r holds the pieces ends[r] to ends[r + 1]
    files: Places  # (P,)
    starts: Places  # (P,) first token of the piece in its file
    lengths: Places  # (P,)
    lines: Places  # (P,) of its document

    @property
    def num_rows(self) -> int:
        """Rows of this part."""
        return len(self.ends) - 1


@dataclass(frozen=True)
class Target:
    """What all parts have in common."""

    tokens: Path  # the file that rows are written into, of full size
    folder: Path  # for the lines of rows.parquet
    sources: tuple[Path, ...]  # files of documents' tokens
    sequence_length: int
    dtype: str
    eos_id: int  # fills rows up


def lay_out(
    stored: Stored,
    sections: Sequence[tuple[Split, Places]],
    sequence_length: int,
    method: Literal["best_fit", "concatenate"],
) -> Iterator[Part]:
    """Divide each section, documents in the order wanted, into parts and pack them."""
    number = first_row = 0
    for split, order in sections:
        for start in range(0, len(order), PART_DOCUMENTS):
            chosen = order[start : start + PART_DOCUMENTS]
            packing = pack(stored.lengths[chosen], sequence_length, method)
            documents = chosen[packing.documents]
            yield Part(
                number=number,
                split=split,
                first_row=first_row,
                ends=packing.ends,
                files=stored.files[documents],
                starts=stored.starts[documents] + packing.starts,
                lengths=packing.lengths,
                lines=stored.lines[documents],
            )
            number, first_row = number + 1, first_row + len(packing)


def write_part(target: Target, part: Part) -> Path:
    """Write the rows of a part, unless that was done, and return its lines of ``rows.parquet``."""
    done = target.folder / f"{part.number:05d}-{ROWS}"
    if done.is_file():
        return done
    dtype = np.dtype(target.dtype)
    row_bytes = target.sequence_length * dtype.itemsize
    files: dict[int, NDArray[Any]] = {}
    with target.tokens.open("r+b") as stream:
        for first in range(0, part.num_rows, _ROWS_AT_A_TIME):
            rows = _rows(target, part, first, files)
            stream.seek((part.first_row + first) * row_bytes)
            stream.write(rows.tobytes())
        stream.flush()
        os.fsync(stream.fileno())
    table = row_table(
        part.first_row, part.lines, part.lengths, part.ends, [part.split] * part.num_rows
    )
    draft = done.with_name(f".{done.name}.{os.getpid()}")
    pq.write_table(table, draft, compression="zstd")
    artifacts.flush(draft)
    draft.rename(done)
    return done


def _rows(target: Target, part: Part, first: int, files: dict[int, NDArray[Any]]) -> NDArray[Any]:
    """Some rows of a part, padding included.  # (R', T)."""
    last = min(first + _ROWS_AT_A_TIME, part.num_rows)
    dtype = np.dtype(target.dtype)
    flat = np.full((last - first) * target.sequence_length, target.eos_id, dtype)
    pieces = slice(part.ends[first], part.ends[last])
    lengths = part.lengths[pieces]
    counts = np.diff(part.ends[first : last + 1])
    before = np.cumsum(lengths) - lengths  # tokens of all earlier pieces
    of_row = before[part.ends[first:last] - part.ends[first]]  # of all earlier rows
    row = np.repeat(np.arange(last - first), counts)
    places = row * target.sequence_length + before - of_row[row]
    columns = (part.files[pieces], part.starts[pieces], lengths, places)
    for file, start, length, place in zip(*(c.tolist() for c in columns), strict=True):
        if file not in files:
            if len(files) >= _MOST_OPEN_FILES:
                files.clear()
            files[file] = np.memmap(target.sources[file], dtype=dtype, mode="r")
        flat[place : place + length] = files[file][start : start + length]
    return flat


def join_lines(parts: Sequence[Path], out: Path) -> None:
    """Put the lines of all parts, in order, into one ``rows.parquet``."""
    with pq.ParquetWriter(out, pq.read_schema(parts[0]), compression="zstd") as writer:
        for path in parts:
            table: pa.Table = pq.read_table(path)
            writer.write_table(table)
