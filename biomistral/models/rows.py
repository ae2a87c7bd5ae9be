"""Packed rows of tokens: the format that the corpus writes and training reads.

    tokens.bin         rows of sequence_length little-endian uint16 (uint32 past 65,536 tokens),
                       training rows first, held-out rows last; padding has the end-of-text id
    rows.parquet       one line per row: document indices, lengths in tokens, split
    documents.parquet  one line per document seen, kept or dropped; a row's indices point here
    tokens.json        what is needed to read the rest

A row holds pieces of documents one after the other, in the order of ``lengths``; what is left of
it is padding. Two neighbours of one document in one row are two pieces. Knows nothing about
articles, tokenizers or how rows are packed.

Shapes: T sequence_length.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from biomistral.artifacts import write_json
from biomistral.errors import InputError

Split = Literal["train", "held_out"]
TOKENS = "tokens.bin"
ROWS = "rows.parquet"
DOCUMENTS = "documents.parquet"
FACTS = "tokens.json"


@dataclass(frozen=True, slots=True)
class Row:
    """One row to write: its pieces in order, and the index of the document each is from."""

    pieces: tuple[NDArray[np.integer[Any]], ...]
    documents: tuple[int, ...]


def dtype_for(vocabulary_size: int) -> np.dtype[Any]:
    """Little-endian type of a token id: two bytes where they hold every id, else four."""
    return np.dtype("<u2" if vocabulary_size <= 2**16 else "<u4")


def write_rows(
    folder: Path,
    train: Iterable[Row],
    held_out: Iterable[Row],
    *,
    sequence_length: int,
    vocabulary_size: int,
    eos_id: int,
    tokenizer_sha256: str = "",
) -> dict[str, Any]:
    """Write ``tokens.bin``, ``rows.parquet`` and ``tokens.json``; return what ``tokens.json`` says.

    Rows are consumed one at a time. ``documents.parquet`` is the caller's. For corpora past memory
    there are ``row_table`` and ``write_facts``, of which this is made.
    """
    dtype = dtype_for(vocabulary_size)
    documents, lengths, ends = array("i"), array("i"), array("q", [0])
    num_rows = {"train": 0, "held_out": 0}
    with (folder / TOKENS).open("wb") as stream:
        for split, rows in (("train", train), ("held_out", held_out)):
            for row in rows:
                stream.write(_filled(row, sequence_length, eos_id, dtype).tobytes())
                documents.extend(row.documents)
                lengths.extend(len(piece) for piece in row.pieces)
                ends.append(len(lengths))
                num_rows[split] += 1
    splits = ["train"] * num_rows["train"] + ["held_out"] * num_rows["held_out"]
    pq.write_table(
        row_table(0, documents, lengths, ends, splits), folder / ROWS, compression="zstd"
    )
    return write_facts(
        folder,
        num_rows=len(splits),
        num_held_out_rows=num_rows["held_out"],
        num_tokens=sum(lengths),
        sequence_length=sequence_length,
        vocabulary_size=vocabulary_size,
        eos_id=eos_id,
        tokenizer_sha256=tokenizer_sha256,
    )


def row_table(
    first_row: int,
    documents: Sequence[int] | NDArray[Any],
    lengths: Sequence[int] | NDArray[Any],
    ends: Sequence[int] | NDArray[Any],
    splits: Sequence[str],
) -> pa.Table:
    """Lines of ``rows.parquet`` for consecutive rows.

    Row r has the pieces ``ends[r]`` to ``ends[r + 1]``; of each the index of its document and its
    length in tokens.
    """

    def lists(values: Sequence[int] | NDArray[Any]) -> pa.Array:
        return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(values, pa.int32()))

    return pa.table(
        {
            "row": pa.array(range(first_row, first_row + len(splits)), pa.int64()),
            "documents": lists(documents),
            "lengths": lists(lengths),
            "split": pa.array(splits, pa.string()),
        }
    )


def write_facts(
    folder: Path,
    *,
    num_rows: int,
    num_held_out_rows: int,
    num_tokens: int,
    sequence_length: int,
    vocabulary_size: int,
    eos_id: int,
    tokenizer_sha256: str = "",
) -> dict[str, Any]:
    """Write ``tokens.json`` and return what it says."""
    facts = {
        "sequence_length": sequence_length,
        "dtype": dtype_for(vocabulary_size).name,
        "vocabulary_size": vocabulary_size,
        "num_rows": num_rows,  # held-out rows included
        "num_held_out_rows": num_held_out_rows,
        "num_tokens": num_tokens,  # padding apart
        "eos_id": eos_id,
        "tokenizer_sha256": tokenizer_sha256,
    }
    write_json(folder / FACTS, facts)
    return facts


def _filled(
    row: Row, sequence_length: int, eos_id: int, dtype: np.dtype[Any]
) -> NDArray[np.integer[Any]]:
    """Pieces one after the other, then padding.  # (T,)."""
    filled = np.full(sequence_length, eos_id, dtype=dtype)
    joined = np.concatenate(row.pieces)
    assert len(joined) <= sequence_length, "a row is overfull"
    filled[: len(joined)] = joined
    return filled


class PackedRows:
    """The rows of one split of a ``tokens`` artefact, memory-mapped.

    ``rows[index]`` gives the token ids, int64 of shape (T,), and the lengths of the row's pieces;
    ``ids[sum(lengths):]`` is padding. Iterating gives the rows in order.

    Raises ``InputError`` if the folder is no such artefact or its files do not fit together.
    """

    def __init__(self, folder: Path, split: Split = "train") -> None:
        self.folder = folder
        facts = _read_facts(folder)
        self.sequence_length: int = facts["sequence_length"]
        self.vocabulary_size: int = facts["vocabulary_size"]
        self.tokenizer_sha256: str = facts.get("tokenizer_sha256", "")  # vocabulary.py; may be ""
        num_rows, num_held_out = facts["num_rows"], facts["num_held_out_rows"]
        first, last = (
            (0, num_rows - num_held_out)
            if split == "train"
            else (num_rows - num_held_out, num_rows)
        )
        dtype = np.dtype(facts["dtype"]).newbyteorder("<")
        self._ids = _map(folder / TOKENS, dtype, num_rows, self.sequence_length)[first:last]
        table = _read_table(folder / ROWS, ["documents", "lengths"])
        if len(table) != num_rows:
            raise InputError(
                f"{folder / ROWS}: has {len(table)} rows, {FACTS} says {num_rows}; "
                "the folder is damaged, make it again"
            )
        part = table.slice(first, last - first).combine_chunks()
        self._ends, self._lengths = _flat(part["lengths"])
        _, self._documents = _flat(part["documents"])
        self._columns: dict[str, pa.ChunkedArray | None] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> tuple[NDArray[np.int64], tuple[int, ...]]:
        place = self._place(index)
        lengths = self._lengths[self._ends[place] : self._ends[place + 1]]
        return self._ids[place].astype(np.int64), tuple(lengths.tolist())

    def __iter__(self) -> Iterator[tuple[NDArray[np.int64], tuple[int, ...]]]:
        return (self[index] for index in range(len(self)))

    def documents(self, index: int) -> tuple[str, ...]:
        """Ids of the documents that the pieces of row ``index`` are from, in order.

        For whoever looks into a row that training stumbles over; the steps do without.
        """
        return self._of_documents(index, "id")

    def languages(self, index: int) -> tuple[str, ...]:
        """Languages of the documents that the pieces of row ``index`` are from; "" if unknown."""
        return self._of_documents(index, "language")

    def _of_documents(self, index: int, column: str) -> tuple[str, ...]:
        place = self._place(index)
        if column not in self._columns:
            path = self.folder / DOCUMENTS
            there = column == "id" or (path.is_file() and column in pq.read_schema(path).names)
            self._columns[column] = _read_table(path, [column])[column] if there else None
        values = self._columns[column]
        indices = self._documents[self._ends[place] : self._ends[place + 1]]
        if values is None:
            return ("",) * len(indices)
        return tuple(values[int(i)].as_py() or "" for i in indices)

    def _place(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return index % len(self)


def _read_facts(folder: Path) -> dict[str, Any]:
    path = folder / FACTS
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder}: holds no packed tokens ({FACTS}: {error}); "
            "make them with: biomistral run RECIPE --only tokens"
        ) from None
    needed = {
        "sequence_length", "vocabulary_size", "eos_id", "dtype", "num_rows", "num_held_out_rows"
    }  # fmt: skip
    if not isinstance(facts, dict) or (missing := needed - facts.keys()):
        raise InputError(f"{path}: lacks {sorted(missing) if isinstance(facts, dict) else 'all'}")
    return facts


def _map(path: Path, dtype: np.dtype[Any], num_rows: int, length: int) -> NDArray[Any]:
    size = path.stat().st_size if path.is_file() else None
    if size != num_rows * length * dtype.itemsize:
        raise InputError(
            f"{path}: has {size} bytes, {num_rows} rows of {length} {dtype.name} need "
            f"{num_rows * length * dtype.itemsize}; the folder is damaged, make it again"
        )
    if num_rows == 0:  # an empty file cannot be mapped
        return np.empty((0, length), dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r", shape=(num_rows, length))


def _read_table(path: Path, columns: list[str]) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read ({error}); make the tokens again") from None


def _flat(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """A column of lists as ends (num_rows + 1, first 0) and values in one array."""
    lengths = [chunk.value_lengths().to_numpy() for chunk in column.chunks]
    values = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    ends = np.concatenate([[0], *(np.cumsum(part, dtype=np.int64) for part in lengths)])
    return ends, np.concatenate([np.empty(0, np.int32), *values])
