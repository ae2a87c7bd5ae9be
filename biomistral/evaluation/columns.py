"""Predictions as columns: what the arithmetic of evaluation works on.

A file of predictions holds hundreds of thousands of answers, too many to make an object of each.
Here a file is read into arrays and cut into *cells*: all answers of one model to one task in one
language with one scoring, as a table of seeds by questions. Knows nothing about metrics.

Shapes: N answers, S seeds, Q questions, C the most choices of any question.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from biomistral.errors import InputError
from biomistral.records import LETTERS, UNSAID

PREDICTIONS = "predictions.parquet"
VALIDATION = "validation.parquet"  # answers to validation questions, beside them
_COLUMNS = ("question_id", "task", "language", "shots", "seed", "scoring", "logprobs", "gold")
_OPTIONAL = ("order", "top")  # files of older versions do not have them

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
    places: Ints | None = None  # (S, Q, C) where each choice was shown; None: in its own place
    tops: Ints | None = None  # (S, Q) place whose letter was the most probable token; -1: no letter

    @property
    def in_words(self) -> bool:
        """Whether some answer has no probabilities, because the model gave words only."""
        return bool((self.logprobs == UNSAID).any())

    @property
    def num_choices(self) -> Ints:
        """Number of choices of each question.  # (Q,)."""
        counts: Ints = np.isfinite(self.logprobs[0]).sum(axis=1)
        return counts

    def restricted(self, question_ids: Sequence[str], seeds: Sequence[int]) -> Cell:
        """Return the answers to some of the questions with some of the seeds, in the order given."""
        rows = [self.seeds.index(seed) for seed in seeds]
        places = {name: place for place, name in enumerate(self.question_ids)}
        columns = [places[name] for name in question_ids]

        def of(values: Any) -> Any:
            return None if values is None else values[rows][:, columns]

        return Cell(
            tuple(question_ids),
            tuple(seeds),
            of(self.logprobs),
            self.gold[columns],
            of(self.places),
            of(self.tops),
        )


def read_cells(folder: Path, model: str) -> dict[CellKey, Cell]:
    """Read the predictions of one model, cell by cell in order of first appearance.

    Raises ``InputError`` if the file is missing or broken, empty, has an answer twice, lacks one
    for some seed, or gives one question two right answers.
    """
    return _read_file(folder / PREDICTIONS, model)


def read_validation(folder: Path, model: str) -> dict[CellKey, Cell]:
    """Read the answers to validation questions that lie beside a model's predictions, if any do.

    Raises ``InputError`` as ``read_cells`` does.
    """
    path = folder / VALIDATION
    return _read_file(path, model) if path.is_file() and pq.read_metadata(path).num_rows else {}


def _read_file(path: Path, model: str) -> dict[CellKey, Cell]:
    table = _read_table(path)
    if not table.num_rows:
        raise InputError(f"{path}: is empty; evaluate {model!r} again")
    logprobs = _padded(table["logprobs"].combine_chunks(), -np.inf)
    answers = _Answers(
        *_coded(table["question_id"]),
        seeds=table["seed"].to_numpy(),
        logprobs=logprobs,
        gold=table["gold"].to_numpy(),
        places=_places(table, logprobs.shape[1]),
        tops=_tops(table),
    )
    return {
        key: _cell(f"predictions of {model!r}, {words(key)}", answers, rows)
        for key, rows in _rows_by_key(table)
    }


def check_same_questions(
    cells: Mapping[str, Mapping[CellKey, Cell]], *, partial: bool = False
) -> None:
    """Raise ``InputError`` unless all models answered the same questions with the same seeds.

    With ``partial`` a model may lack a whole cell, but none of the questions of one it has.
    """
    first, *others = cells
    for model in others:
        for one, other in ((first, model), (model, first)):
            for key, cell in cells[one].items():
                if key in cells[other]:
                    _check_covers(key, cell, cells[other][key], one, other)
                elif not partial:
                    raise InputError(
                        f"predictions: {other!r} lacks question {cell.question_ids[0]!r} and all "
                        f"others of {words(key)}, which {one!r} has; evaluate both alike"
                    )
    if partial and len(others) > 1:  # what the first lacks is compared among the others
        rest = {
            model: {key: cell for key, cell in cells[model].items() if key not in cells[first]}
            for model in others
        }
        check_same_questions(rest, partial=True)


def _check_covers(key: CellKey, cell: Cell, other_cell: Cell, one: str, other: str) -> None:
    """Raise ``InputError`` if ``other`` lacks a question or seed of ``one``, or disagrees."""
    if lacking := set(cell.seeds) - set(other_cell.seeds):
        raise InputError(
            f"predictions: {other!r} lacks question {cell.question_ids[0]!r} of {words(key)} with "
            f"seed {min(lacking)}, which {one!r} has; evaluate both with the same seeds"
        )
    if cell.question_ids != other_cell.question_ids:
        there = set(other_cell.question_ids)
        missing = next((name for name in cell.question_ids if name not in there), None)
        if missing is None:
            return  # the other way round finds which is missing
        raise InputError(
            f"predictions: {other!r} lacks question {missing!r} of {words(key)}, which {one!r} "
            "has; evaluate both on the same questions"
        )
    differ = (cell.gold != other_cell.gold) | (cell.num_choices != other_cell.num_choices)
    if differ.any():
        name = cell.question_ids[int(np.argmax(differ))]
        raise InputError(
            f"predictions: {one!r} and {other!r} disagree on the right answer or the number of "
            f"choices of question {name!r} of {words(key)}; evaluate both on the same questions"
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
    return table.select([*_COLUMNS, *(name for name in _OPTIONAL if name in table.column_names)])


class _Answers(NamedTuple):
    """The columns of a file, row by row."""

    names: NDArray[Any]  # question ids, sorted
    ids: Ints  # (N,) index into names
    seeds: Ints  # (N,)
    logprobs: Floats  # (N, C)
    gold: Ints  # (N,)
    places: Ints | None  # (N, C)
    tops: Ints | None  # (N,)


def _coded(column: Any) -> tuple[NDArray[Any], Ints]:
    """Distinct texts of a column in order, and which of them each row has."""
    coded = column.combine_chunks().dictionary_encode()
    texts = np.array(coded.dictionary.to_pylist(), dtype=object)
    order = np.argsort(texts)
    return texts[order], np.argsort(order)[coded.indices.to_numpy()]


def _padded(lists: Any, filler: float, width: int = 0) -> Any:
    """Turn a list column into a table with ``filler`` behind the shorter lists.  # (N, C)."""
    lengths = np.diff(lists.offsets.to_numpy())
    values = lists.flatten().to_numpy()
    width = width or lengths.max()
    table = np.full((len(lengths), width), filler, dtype=values.dtype)
    table[np.arange(width) < lengths[:, None]] = values
    return table


def _places(table: Any, num_choices: int) -> Ints | None:
    """Invert the orders in which choices were shown: place of each choice.  # (N, C)."""
    if "order" not in table.column_names:
        return None
    lists = table["order"].combine_chunks()
    if not len(lists.flatten()):
        return None
    last = np.iinfo(np.int64).max  # sorts behind all choices; a row without order stays in order
    order = _padded(lists, last, num_choices)
    places: Ints = np.argsort(order, axis=1, kind="stable")
    return places


def _tops(table: Any) -> Ints | None:
    """Places of the letters that were the most probable token; -1 for anything else.  # (N,)."""
    if "top" not in table.column_names:
        return None
    coded = table["top"].combine_chunks().dictionary_encode()
    texts = coded.dictionary.to_pylist()
    if not any(texts):
        return None
    places = [LETTERS.find(text.strip()) if len(text.strip()) == 1 else -1 for text in texts]
    tops: Ints = np.array(places)[coded.indices.to_numpy()]
    return tops


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


def _cell(where: str, answers: _Answers, rows: Ints) -> Cell:
    """Order the answers of one cell by seed and question id."""
    unique_ids, id_codes = np.unique(answers.ids[rows], return_inverse=True)
    unique_seeds, seed_codes = np.unique(answers.seeds[rows], return_inverse=True)
    names = answers.names[unique_ids]
    num_questions, num_seeds = len(unique_ids), len(unique_seeds)
    place = seed_codes * num_questions + id_codes
    times = np.bincount(place, minlength=num_seeds * num_questions)
    if (times != 1).any():
        wrong = int(np.argmax(times != 1))
        seed, name = unique_seeds[wrong // num_questions], names[wrong % num_questions]
        raise InputError(
            f"{where}: question {name!r} has {times[wrong]} answers with seed {seed}; there must "
            "be one for each question and seed: evaluate again"
        )
    order = rows[np.argsort(place)]
    shape = (num_seeds, num_questions)
    by_seed = answers.gold[order].reshape(shape)
    if (by_seed != by_seed[0]).any():
        name = names[int(np.argmax((by_seed != by_seed[0]).any(axis=0)))]
        raise InputError(f"{where}: the right answer to question {name!r} changes with the seed")
    return Cell(
        question_ids=tuple(names),
        seeds=tuple(unique_seeds.tolist()),
        logprobs=answers.logprobs[order].reshape(*shape, -1),
        gold=by_seed[0],
        places=None if answers.places is None else answers.places[order].reshape(*shape, -1),
        tops=None if answers.tops is None else answers.tops[order].reshape(shape),
    )


def words(key: CellKey) -> str:
    """Say a key as messages do: ``anatomy (en, letter scoring, 3 shots)``."""
    return f"{key.task} ({key.language}, {key.scoring} scoring, {key.shots} shots)"
