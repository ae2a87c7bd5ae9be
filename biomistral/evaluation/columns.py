"""Predictions as columns: what the arithmetic of evaluation works on.

A file of predictions holds hundreds of thousands of answers, too many to make an object of each.
Here a file is read into arrays and cut into *cells*: all answers of one model to one task in one
language with one scoring, as a table of seeds by questions. Knows nothing about metrics.

Shapes: N answers, S seeds, Q questions, C the most choices of any question.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from biomistral.errors import InputError

PREDICTIONS = "predictions.parquet"
_COLUMNS = ("question_id", "task", "language", "shots", "seed", "scoring", "logprobs", "gold")

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class CellKey(NamedTuple):
    """What the answers of one cell have in common."""

    task: str
    language: str
    scoring: str
    shots: int


@dataclass(frozen=True)
class Cell:
    """All answers of one model in one cell; questions in the order of their ids."""

    question_ids: tuple[str, ...]  # Q, sorted
    seeds: tuple[int, ...]  # S, sorted
    logprobs: Floats  # (S, Q, C), -inf where a question has fewer choices
    gold: Ints  # (Q,)

    @property
    def num_choices(self) -> Ints:
        """Number of choices of each question.  # (Q,)."""
        counts: Ints = np.isfinite(self.logprobs[0]).sum(axis=1)
        return counts


def read_cells(folder: Path, model: str) -> dict[CellKey, Cell]:
    """Read the predictions of one model, cell by cell in order of first appearance.

    Raises ``InputError`` if the file is missing or broken, empty, has an answer twice, lacks one
    for some seed, or gives one question two right answers.
    """
    table = _read_table(folder / PREDICTIONS)
    if not table.num_rows:
        raise InputError(f"{folder / PREDICTIONS}: is empty; evaluate {model!r} again")
    logprobs = _padded(table["logprobs"].combine_chunks())
    gold = table["gold"].to_numpy()
    seeds = table["seed"].to_numpy()
    ids = np.array(table["question_id"].to_pylist(), dtype=object)
    return {
        key: _cell(
            f"predictions of {model!r}, {_words(key)}",
            ids[rows],
            seeds[rows],
            logprobs[rows],
            gold[rows],
        )
        for key, rows in _rows_by_key(table)
    }


def check_same_questions(cells: Mapping[str, Mapping[CellKey, Cell]]) -> None:
    """Raise ``InputError`` unless all models answered the same questions with the same seeds."""
    first, *others = cells
    for model in others:
        for one, other in ((first, model), (model, first)):
            for key, cell in cells[one].items():
                if key not in cells[other]:
                    raise InputError(
                        f"predictions: {other!r} lacks question {cell.question_ids[0]!r} and all "
                        f"others of {_words(key)}, which {one!r} has; evaluate both alike"
                    )
                _check_covers(key, cell, cells[other][key], one, other)


def _check_covers(key: CellKey, cell: Cell, other_cell: Cell, one: str, other: str) -> None:
    """Raise ``InputError`` if ``other`` lacks a question or seed of ``one``, or disagrees."""
    if lacking := set(cell.seeds) - set(other_cell.seeds):
        raise InputError(
            f"predictions: {other!r} lacks question {cell.question_ids[0]!r} of {_words(key)} with "
            f"seed {min(lacking)}, which {one!r} has; evaluate both with the same seeds"
        )
    if lacking_ids := set(cell.question_ids) - set(other_cell.question_ids):
        missing = next(name for name in cell.question_ids if name in lacking_ids)
        raise InputError(
            f"predictions: {other!r} lacks question {missing!r} of {_words(key)}, which {one!r} "
            "has; evaluate both on the same questions"
        )
    if cell.question_ids != other_cell.question_ids:
        return  # the other way round finds which is missing
    differ = (cell.gold != other_cell.gold) | (cell.num_choices != other_cell.num_choices)
    if differ.any():
        name = cell.question_ids[int(np.argmax(differ))]
        raise InputError(
            f"predictions: {one!r} and {other!r} disagree on the right answer or the number of "
            f"choices of question {name!r} of {_words(key)}; evaluate both on the same questions"
        )


def _read_table(path: Path) -> Any:
    try:
        table = pq.read_table(path)
    except (FileNotFoundError, pa.ArrowInvalid) as error:
        raise InputError(
            f"{path}: cannot be read as Parquet ({error}); name the folder that evaluating a "
            "model has written"
        ) from None
    if missing := set(_COLUMNS) - set(table.column_names):
        raise InputError(f"{path}: lacks the columns {sorted(missing)} of predictions")
    return table.select(_COLUMNS)


def _padded(lists: Any) -> Floats:
    """Turn a list column into a table with -inf behind the shorter lists.  # (N, C)."""
    lengths = np.diff(lists.offsets.to_numpy())
    table = np.full((len(lengths), lengths.max()), -np.inf)
    table[np.arange(lengths.max()) < lengths[:, None]] = lists.flatten().to_numpy()
    return table


def _rows_by_key(table: Any) -> Iterator[tuple[CellKey, Ints]]:
    """Yield each cell's key and the indices of its rows, in order of first appearance."""
    codes = np.zeros(table.num_rows, dtype=np.int64)
    values = []
    for name in CellKey._fields:
        column = table[name].combine_chunks().dictionary_encode()
        codes = codes * len(column.dictionary) + column.indices.to_numpy()
        values.append(column)
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    for number in np.argsort(first):
        row = int(first[number])
        key = CellKey(*(column[row].as_py() for column in values))
        yield key, np.flatnonzero(inverse == number)


def _cell(where: str, ids: Any, seeds: Ints, logprobs: Floats, gold: Ints) -> Cell:
    """Order the answers of one cell by seed and question id."""
    unique_ids, id_codes = np.unique(ids, return_inverse=True)
    unique_seeds, seed_codes = np.unique(seeds, return_inverse=True)
    num_questions, num_seeds = len(unique_ids), len(unique_seeds)
    place = seed_codes * num_questions + id_codes
    times = np.bincount(place, minlength=num_seeds * num_questions)
    if (times != 1).any():
        wrong = int(np.argmax(times != 1))
        seed, name = unique_seeds[wrong // num_questions], unique_ids[wrong % num_questions]
        raise InputError(
            f"{where}: question {name!r} has {times[wrong]} answers with seed {seed}; there must "
            "be one for each question and seed: evaluate again"
        )
    order = np.argsort(place)
    by_seed = gold[order].reshape(num_seeds, num_questions)
    if (by_seed != by_seed[0]).any():
        name = unique_ids[int(np.argmax((by_seed != by_seed[0]).any(axis=0)))]
        raise InputError(f"{where}: the right answer to question {name!r} changes with the seed")
    return Cell(
        question_ids=tuple(unique_ids),
        seeds=tuple(unique_seeds.tolist()),
        logprobs=logprobs[order].reshape(num_seeds, num_questions, -1),
        gold=by_seed[0],
    )


def _words(key: CellKey) -> str:
    return f"{key.task} ({key.language}, {key.scoring} scoring, {key.shots} shots)"
