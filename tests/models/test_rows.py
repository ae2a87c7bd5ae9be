"""Rows come back as they were written, and damage is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biomistral.errors import InputError
from biomistral.models.rows import PackedRows, Row, dtype_for, write_rows

LENGTH = 16


def row(*pieces: tuple[int, list[int]]) -> Row:
    return Row(
        pieces=tuple(np.array(ids, dtype=np.int64) for _, ids in pieces),
        documents=tuple(document for document, _ in pieces),
    )


def write(folder: Path, train: list[Row], held_out: list[Row], vocabulary_size: int = 300) -> Path:
    folder.mkdir(exist_ok=True)
    write_rows(
        folder,
        train,
        held_out,
        sequence_length=LENGTH,
        vocabulary_size=vocabulary_size,
        eos_id=2,
    )
    return folder


@pytest.fixture
def small(tmp_path: Path) -> Path:
    train = [row((0, [1, 7, 2]), (3, [1, 8, 9, 2])), row((1, list(range(3, 19))))]
    folder = write(tmp_path / "tokens", train, [row((2, [1, 299, 2]))])
    pq.write_table(pa.table({"id": ["a", "b", "c", "d"]}), folder / "documents.parquet")
    return folder


def test_a_row_is_its_pieces_then_padding(small: Path) -> None:
    rows = PackedRows(small)
    ids, lengths = rows[0]
    assert len(rows) == 2
    assert lengths == (3, 4)
    assert ids.dtype == np.int64
    assert ids.tolist() == [1, 7, 2, 1, 8, 9, 2] + [2] * 9


def test_splits_are_apart_and_documents_are_named(small: Path) -> None:
    train, held_out = PackedRows(small), PackedRows(small, "held_out")
    assert [train.documents(i) for i in range(2)] == [("a", "d"), ("b",)]
    assert len(held_out) == 1
    assert held_out.documents(0) == ("c",)
    assert held_out[0][0][:3].tolist() == [1, 299, 2]
    assert held_out[-1][1] == (3,)


def test_iteration_ends(small: Path) -> None:
    assert [lengths for _, lengths in PackedRows(small)] == [(3, 4), (16,)]
    with pytest.raises(IndexError, match="row 2 of 2"):
        PackedRows(small)[2]


@pytest.mark.parametrize(
    ("size", "name"), [(32_000, "uint16"), (65_536, "uint16"), (65_537, "uint32")]
)
def test_two_bytes_hold_65536_tokens(size: int, name: str, tmp_path: Path) -> None:
    assert dtype_for(size).name == name
    folder = write(tmp_path / "t", [row((0, [size - 1]))], [], vocabulary_size=size)
    assert PackedRows(folder)[0][0][0] == size - 1


def test_an_empty_split_has_no_rows(tmp_path: Path) -> None:
    folder = write(tmp_path / "t", [row((0, [5]))], [])
    assert len(PackedRows(folder, "held_out")) == 0
    empty = write(tmp_path / "u", [], [])
    assert list(PackedRows(empty)) == []


piece = st.tuples(st.integers(0, 9), st.lists(st.integers(0, 299), min_size=1, max_size=5))
many_rows = st.lists(st.lists(piece, min_size=1, max_size=3), max_size=6)


@settings(max_examples=30, deadline=None)
@given(train=many_rows, held_out=many_rows)
def test_rows_come_back_as_written(tmp_path_factory, train, held_out) -> None:
    folder = write(
        tmp_path_factory.mktemp("t"), [row(*r) for r in train], [row(*r) for r in held_out]
    )
    for split, expected in (("train", train), ("held_out", held_out)):
        rows = PackedRows(folder, split)  # type: ignore[arg-type]
        assert len(rows) == len(expected)
        for (ids, lengths), pieces in zip(rows, expected, strict=True):
            joined = [i for _, piece in pieces for i in piece]
            assert lengths == tuple(len(piece) for _, piece in pieces)
            assert ids.tolist() == joined + [2] * (LENGTH - len(joined))


def test_a_folder_without_tokens_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no packed tokens"):
        PackedRows(tmp_path)


def test_a_truncated_file_is_refused(small: Path) -> None:
    data = (small / "tokens.bin").read_bytes()
    (small / "tokens.bin").write_bytes(data[:-2])
    with pytest.raises(InputError, match="has 94 bytes, 3 rows of 16 uint16 need 96"):
        PackedRows(small)
