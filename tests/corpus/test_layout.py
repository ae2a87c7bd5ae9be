"""Parts of rows put together hold every token once, wherever they were written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from biomistral.corpus import layout
from biomistral.corpus.layout import Stored, Target, join_lines, lay_out, write_part

LENGTH = 16


@pytest.fixture
def sources(tmp_path: Path) -> tuple[Stored, tuple[Path, ...], list[list[int]]]:
    """60 documents in three files; token values tell them apart."""
    rng = np.random.default_rng(4)
    documents = [(i * 100 + np.arange(rng.integers(1, 40))).tolist() for i in range(60)]
    paths, files, starts = [], [], []
    for number in range(3):
        own = documents[number * 20 : (number + 1) * 20]
        path = tmp_path / f"{number}.bin"
        path.write_bytes(np.concatenate(own).astype("<u2").tobytes())
        paths.append(path)
        files += [number] * 20
        starts += [0, *np.cumsum([len(d) for d in own])[:-1].tolist()]
    lengths = np.array([len(d) for d in documents])
    stored = Stored(np.array(files), np.array(starts), lengths, np.arange(60) + 1000)
    return stored, tuple(paths), documents


def write(tmp_path: Path, stored: Stored, paths: tuple[Path, ...], sections, method, order=1):
    folder = tmp_path / f"work{order}"
    folder.mkdir()
    target = Target(folder / "tokens.bin", folder, paths, LENGTH, "<u2", 65_000)
    parts = list(lay_out(stored, sections, LENGTH, method))
    rows = sum(part.num_rows for part in parts)
    target.tokens.write_bytes(bytes(rows * LENGTH * 2))
    lines = [write_part(target, part) for part in parts[::order]][::order]
    join_lines(lines, folder / "rows.parquet")
    return np.fromfile(target.tokens, "<u2").reshape(rows, LENGTH), pq.read_table(folder / "rows.parquet"), target, parts  # fmt: skip


@pytest.mark.parametrize("method", ["best_fit", "concatenate"])
def test_rows_hold_every_token_of_every_document_once(
    method, sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "PART_DOCUMENTS", 7)
    monkeypatch.setattr(layout, "_ROWS_AT_A_TIME", 3)
    monkeypatch.setattr(layout, "_MOST_OPEN_FILES", 1)
    stored, paths, documents = sources
    order = np.random.default_rng(1).permutation(60)
    sections = [("train", order[:50]), ("held_out", order[50:])]
    rows, table, _, parts = write(tmp_path, stored, paths, sections, method)
    assert len(parts) == 8 + 2
    found: dict[int, list[int]] = {}
    for ids, line in zip(rows, table.to_pylist(), strict=True):
        used = sum(line["lengths"])
        assert (ids[used:] == 65_000).all()
        ends = np.cumsum(line["lengths"])
        for document, end, length in zip(line["documents"], ends, line["lengths"], strict=True):
            found.setdefault(document - 1000, []).extend(ids[end - length : end].tolist())
    assert {k: sorted(v) for k, v in found.items()} == dict(enumerate(documents))
    splits = table["split"].to_pylist()
    assert splits == sorted(splits, reverse=True)
    assert table["row"].to_pylist() == list(range(len(rows)))


def test_the_order_in_which_parts_are_written_does_not_matter(
    sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "PART_DOCUMENTS", 9)
    stored, paths, _ = sources
    sections = [("train", np.arange(60))]
    forth, table, *_ = write(tmp_path, stored, paths, sections, "best_fit")
    back, same, *_ = write(tmp_path, stored, paths, sections, "best_fit", order=-1)
    assert (forth == back).all()
    assert table == same


def test_a_part_that_is_done_is_not_done_again(sources, tmp_path: Path) -> None:
    stored, paths, _ = sources
    _, _, target, parts = write(tmp_path, stored, paths, [("train", np.arange(60))], "best_fit")
    before = target.tokens.stat().st_mtime_ns
    write_part(target, parts[0])
    assert target.tokens.stat().st_mtime_ns == before


def test_sections_never_share_a_row(sources, tmp_path: Path) -> None:
    stored, *_ = sources
    sections = [("train", np.arange(30)), ("train", np.arange(30, 60))]
    first, second = lay_out(stored, sections, LENGTH, "best_fit")
    assert set(first.lines.tolist()) == set(range(1000, 1030))
    assert second.first_row == first.num_rows
