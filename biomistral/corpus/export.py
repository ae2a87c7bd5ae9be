"""Packed rows as Parquet that ``datasets.load_dataset`` reads, with what must go along with them.

    data/train-00000-of-00002.parquet ...   one line per row, of these columns
        input_ids     the row without its padding
        seq_lengths   lengths of its pieces in order, as padding-free collators want them (TRL)
        documents     of each piece the article it is from (PMCID.version, or the document's id)
        licences      of each piece the licence
    README.md, ATTRIBUTION.txt, DATASHEET.md

Knows nothing about how rows are made.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from biomistral import artifacts
from biomistral.artifacts import Origin
from biomistral.corpus.provenance import ATTRIBUTION, DATASHEET, article_name
from biomistral.errors import InputError
from biomistral.models.rows import DOCUMENTS, ROWS, PackedRows, Split
from biomistral.progress import Progress, ignore

ROWS_A_FILE = 65_536  # of 2,048 tokens: about 200 MB
_ROWS_AT_A_TIME = 1_024
_SPLITS: tuple[Split, ...] = ("train", "held_out")
_FACTS = ("id", "pmcid", "version", "licence")


def export_rows(tokens: Path, out: Path, *, progress: Progress = ignore) -> Path:
    """Write the rows of the ``tokens`` artefact as the dataset ``out`` and return it.

    Raises ``InputError`` if the folder holds no packed rows.
    """
    rows = {split: PackedRows(tokens, split) for split in _SPLITS}
    artifacts.check_apart(out, {"tokens": tokens})
    origin = Origin(
        kind="dataset",
        name=out.name,
        settings={},
        inputs={"tokens": artifacts.fingerprint_of_files([tokens])},
    )
    with artifacts.create(out, origin) as draft:
        (draft.folder / "data").mkdir()
        names, licences = _articles(tokens)
        lines = pq.read_table(tokens / ROWS, columns=["documents", "lengths"])
        start = 0
        for split, packed in rows.items():
            own = lines.slice(start, len(packed))
            _write_split(draft.folder / "data", split, packed, (own, names, licences), progress)
            start += len(packed)
        for name in (ATTRIBUTION, DATASHEET):
            if (tokens / name).is_file():
                shutil.copyfile(tokens / name, draft.folder / name)
        present = [split for split in _SPLITS if len(rows[split])]
        (draft.folder / "README.md").write_text(_card(present), encoding="utf-8")
        draft.counts |= {f"{split}_rows": len(packed) for split, packed in rows.items()}
    return out


def _articles(tokens: Path) -> tuple[pa.Array, pa.Array]:
    """Name and licence of each document, by its line."""
    columns = pq.read_schema(tokens / DOCUMENTS).names
    missing = [name for name in _FACTS if name not in columns]
    if missing:
        raise InputError(
            f"{tokens / DOCUMENTS}: has no column {missing[0]}; the tokens were made by an older "
            "version, make them again"
        )
    table = pq.read_table(tokens / DOCUMENTS, columns=list(_FACTS))
    names = [article_name(row) for batch in table.to_batches() for row in batch.to_pylist()]
    return pa.array(names, pa.string()), table["licence"].combine_chunks()


def _write_split(
    folder: Path,
    split: Split,
    packed: PackedRows,
    facts: tuple[pa.Table, pa.Array, pa.Array],
    progress: Progress,
) -> None:
    """Write the files of one split; none if it has no rows."""
    num_files = -(-len(packed) // ROWS_A_FILE)
    for number in range(num_files):
        path = folder / f"{split}-{number:05d}-of-{num_files:05d}.parquet"
        first = number * ROWS_A_FILE
        tables = _tables(packed, facts, first, min(first + ROWS_A_FILE, len(packed)))
        table = next(tables)
        with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
            writer.write_table(table)
            for table in tables:
                writer.write_table(table)
        progress(min(first + ROWS_A_FILE, len(packed)), len(packed), f"{split} rows written")


def _tables(
    packed: PackedRows, facts: tuple[pa.Table, pa.Array, pa.Array], first: int, last: int
) -> Iterator[pa.Table]:
    lines, names, licences = facts
    for start in range(first, last, _ROWS_AT_A_TIME):
        stop = min(start + _ROWS_AT_A_TIME, last)
        rows = [packed[index] for index in range(start, stop)]
        ids = [row[: sum(lengths)] for row, lengths in rows]
        ends = np.cumsum([0, *map(len, ids)])
        documents = lines["documents"].slice(start, stop - start).combine_chunks()
        yield pa.table(
            {
                "input_ids": pa.ListArray.from_arrays(
                    pa.array(ends, pa.int32()), pa.array(np.concatenate(ids), pa.int32())
                ),
                "seq_lengths": pa.array(
                    [list(lengths) for _, lengths in rows], pa.list_(pa.int32())
                ),
                "documents": _of_pieces(documents, names),
                "licences": _of_pieces(documents, licences),
            }
        )


def _of_pieces(documents: pa.ListArray, facts: pa.Array) -> pa.Array:
    """For each row, a fact about the document of each of its pieces."""
    counts = np.concatenate([[0], np.cumsum(documents.value_lengths().to_numpy())])
    return pa.ListArray.from_arrays(pa.array(counts, pa.int32()), facts.take(documents.flatten()))


def _card(splits: list[Split]) -> str:
    """Return the dataset's card; its head tells ``datasets`` which files are which split."""
    files = "".join(f"  - split: {split}\n    path: data/{split}-*.parquet\n" for split in splits)
    return (
        f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n\n"
        "Packed rows of tokens for continued pre-training: `input_ids` without padding, "
        "`seq_lengths` of the pieces in each row, and the article and licence of each piece. "
        "DATASHEET.md says what is in it; ATTRIBUTION.txt names the articles and must go with it.\n"
    )
