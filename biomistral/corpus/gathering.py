"""What all shards found, put together: what repeats, what enters, and in which order.

Holds 200 bytes a document and no text: 300 MB for 1.5 million articles. Writes the corpus-wide
``documents.parquet`` shard by shard. Knows nothing about rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from biomistral.corpus.duplicates import REASONS, find_duplicates
from biomistral.corpus.layout import Stored
from biomistral.corpus.selection import arrange, choose
from biomistral.corpus.shards import SCHEMA, read_kept
from biomistral.languages import LANGUAGES
from biomistral.models.rows import DOCUMENTS, Split
from biomistral.progress import Progress
from biomistral.recipe.settings import CorpusSettings

OVER_BUDGET = len(REASONS)
_REASONS = (*REASONS, "over_budget")
_ENGLISH = list(LANGUAGES).index("en")
# Of a record, all but its sketch.
_COLUMNS = ("line", "length", "language", "draw", "id", "digest")


@dataclass
class Gathered:
    """Documents that no shard dropped, in the order read.  # (N,) each."""

    columns: dict[str, NDArray[Any]]  # by the names of ``shards.KEPT``, the sketch apart
    shard_ends: NDArray[np.int64]  # (number of shards + 1,) first 0
    seen_ends: NDArray[np.int64]  # the same, counting documents seen
    codes: NDArray[np.uint8]  # reason to drop it after all, a place in _REASONS; 0: keep
    kept: NDArray[np.int64]  # the document that it repeats, or itself
    held_out: NDArray[np.bool_]

    @property
    def enters(self) -> NDArray[np.bool_]:
        """Whether each document is in the corpus."""
        enters: NDArray[np.bool_] = self.codes == 0
        return enters

    def shard_of(self) -> NDArray[np.int64]:
        """Number of the shard that each document is in."""
        return np.repeat(np.arange(len(self.shard_ends) - 1), np.diff(self.shard_ends))


@dataclass
class Tally:
    """Numbers for the manifest, counted while ``documents.parquet`` is written."""

    seen: int = 0
    kept: int = 0
    held_out: int = 0
    words: int = 0
    tokens: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    by_language: Counter[str] = field(default_factory=Counter)
    by_licence: Counter[str] = field(default_factory=Counter)
    tokens_by_language: Counter[str] = field(default_factory=Counter)
    by_year: Counter[str] = field(default_factory=Counter)

    def add(self, row: dict[str, Any]) -> None:
        """Count one document."""
        self.seen += 1
        if row["dropped"]:
            self.dropped[row["dropped"]] += 1
            return
        self.kept += 1
        self.held_out += row["split"] == "held_out"
        self.words += row["num_words"]
        self.tokens += row["num_tokens"]
        self.by_language[row["language"] or "unknown"] += 1
        self.tokens_by_language[row["language"] or "unknown"] += row["num_tokens"]
        self.by_licence[row["licence"] or "none given"] += 1
        self.by_year[str(row["year"] or "unknown")] += 1

    def counts(self) -> dict[str, Any]:
        """As the manifest has them."""
        return {
            "documents_seen": self.seen,
            "documents_kept": self.kept,
            "documents_held_out": self.held_out,
            "words": self.words,
            "dropped": dict(sorted(self.dropped.items())),
            "by_language": dict(sorted(self.by_language.items())),
            "tokens_by_language": dict(sorted(self.tokens_by_language.items())),
            "by_licence": dict(sorted(self.by_licence.items())),
        }


def gather(folders: Sequence[Path], settings: CorpusSettings, progress: Progress) -> Gathered:
    """Read the records of all shards and decide on every document."""
    columns, sketches, shard_ends = _read(folders)
    seen = [pq.read_metadata(folder / DOCUMENTS).num_rows for folder in folders]
    verdicts = find_duplicates(
        columns["id"], columns["digest"], sketches, settings.near_duplicates, progress
    )
    codes = verdicts.codes.copy()
    left = np.flatnonzero(codes == 0)
    of_left = {name: columns[name][left] for name in ("language", "length", "draw")}
    chosen = choose(
        of_left["language"], of_left["length"], of_left["draw"], settings.language_mix, _ENGLISH
    )
    codes[left[~chosen]] = OVER_BUDGET
    return Gathered(
        columns,
        shard_ends,
        np.cumsum([0, *seen]),
        codes,
        verdicts.kept,
        is_held_out(columns["draw"], settings.held_out_fraction),
    )


def _read(
    folders: Sequence[Path],
) -> tuple[dict[str, NDArray[Any]], NDArray[np.uint8], NDArray[np.int64]]:
    """Columns and sketches of all records, copied once."""
    parts = [read_kept(folder) for folder in folders]
    ends = np.cumsum([0, *map(len, parts)])
    columns = {name: np.concatenate([part[name] for part in parts]) for name in _COLUMNS}
    columns["length"] = columns["length"].astype(np.int64)
    sketches = np.concatenate([part["sketch"] for part in parts])
    return columns, sketches, ends


def reasons(gathered: Gathered) -> Iterator[str]:
    """Reasons of the documents dropped here."""
    return (_REASONS[code] for code in gathered.codes.tolist() if code)


def is_held_out(draws: NDArray[np.uint64], fraction: float) -> NDArray[np.bool_]:
    """Whether each document is held out: those of the least draws are."""
    if fraction >= 1:
        return np.ones(len(draws), np.bool_)
    return draws < np.uint64(int(fraction * 2**64))


def stored(gathered: Gathered) -> Stored:
    """Where the tokens of each document are: in the files of its shard, one after the other."""
    lengths, shards = gathered.columns["length"], gathered.shard_of()
    before = np.cumsum(lengths) - lengths
    first = np.concatenate([before, [0]])[gathered.shard_ends[:-1]]
    return Stored(
        files=shards,
        starts=before - first[shards],
        lengths=lengths,
        lines=gathered.columns["line"].astype(np.int64) + gathered.seen_ends[shards],
    )


def sections(gathered: Gathered, settings: CorpusSettings) -> list[tuple[Split, NDArray[np.int64]]]:
    """Documents to lay out one after the other; the held-out ones last."""
    found: list[tuple[Split, NDArray[np.int64]]] = []
    splits: tuple[Split, Split] = ("train", "held_out")
    for split in splits:
        of_split = gathered.held_out == (split == "held_out")
        chosen = np.flatnonzero(gathered.enters & of_split)
        parts = arrange(gathered.columns["language"][chosen], settings.language_mix, _ENGLISH)
        found += [(split, chosen[part]) for part in parts]
    return found


def write_documents(
    folders: Sequence[Path], gathered: Gathered, out: Path
) -> Iterator[dict[str, Any]]:
    """Write ``documents.parquet`` with what was decided, and yield its lines on the way.

    Nothing is whole before the last line was taken.
    """
    repeated = gathered.codes.nonzero()[0]
    repeated = repeated[gathered.codes[repeated] != OVER_BUDGET]
    names: dict[int, str] = dict.fromkeys(gathered.kept[repeated].tolist(), "")
    with pq.ParquetWriter(out, SCHEMA, compression="zstd") as writer:
        for number, folder in enumerate(folders):
            rows = pq.read_table(folder / DOCUMENTS).to_pylist()
            first, last = gathered.shard_ends[number : number + 2].tolist()
            for index in range(first, last):
                _decide(rows[int(gathered.columns["line"][index])], index, gathered, names)
            writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
            yield from rows


def _decide(row: dict[str, Any], index: int, gathered: Gathered, names: dict[int, str]) -> None:
    """Change one line to what was decided; ``names`` keeps the ids that later lines speak of."""
    code = int(gathered.codes[index])
    if index in names:
        names[index] = row["id"]
    if code == 0:
        row["split"] = "held_out" if gathered.held_out[index] else "train"
        return
    row["dropped"], row["num_tokens"] = _REASONS[code], 0
    if code != OVER_BUDGET:
        row["detail"] = names[int(gathered.kept[index])]
