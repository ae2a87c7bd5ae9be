"""Write the question browser: ``questions.html`` and its data beside it.

The edge of ``browser``: reads questions and predictions column by column, for there can be millions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from biomistral.errors import InputError
from biomistral.records import Task
from biomistral.reporting.browser import (
    Board,
    Texts,
    Track,
    TrackAnswers,
    answers_of,
    index_script,
    may_show,
    part_script,
)
from biomistral.reporting.joining import contradiction
from biomistral.reporting.render import render_browser

PAGE = "questions.html"
DATA = "questions"

_KEY = ("language", "task", "id")
_TEXTS = ("stem", "choices", "context")
_NONE = np.zeros(0, dtype=np.int64)
_NOTHING = Board((), (), _NONE, _NONE, _NONE, _NONE, (), (), {})


def write_browser(
    folder: Path,
    *,
    title: str,
    questions: Sequence[Path],
    predictions: Mapping[str, Path],
    tasks: Sequence[Task],
    languages: Sequence[str],
    texts: Texts = "open",
) -> int:
    """Write the browser into ``folder`` and return the number of its questions.

    ``tasks`` and ``languages`` give the orders. Without a question that was answered, nothing is
    written. Raises ``InputError`` if a file cannot be read.
    """
    board = read_board(questions, predictions, tasks, languages, texts)
    if not len(board.ids):
        return 0
    (folder / DATA).mkdir()
    _write(folder / PAGE, render_browser(title))
    _write(folder / DATA / "index.js", index_script(board, title))
    for part in range(board.num_parts):
        _write(folder / DATA / f"{part}.js", part_script(board, part))
    return len(board.ids)


def read_board(
    questions: Sequence[Path],
    predictions: Mapping[str, Path],
    tasks: Sequence[Task],
    languages: Sequence[str],
    texts: Texts = "open",
) -> Board:
    """Read the test questions that were answered, and the answers of all models to them.

    ``questions`` are folders of them, those of several runs without a contradiction.
    """
    found = {
        model: _read(path / "predictions.parquet", ["language", "task", "question_id", "shots",
                                                    "scoring", "logprobs"])
        for model, path in predictions.items()
    }  # fmt: skip
    if not questions or not predictions:
        return _NOTHING
    table = _answered(_united([_test_questions(path) for path in questions]), found)
    table = _in_order(table, tasks, languages)
    keys, gold = _keys(table, _KEY), table["gold"].to_numpy()
    tracks = {
        track: answers
        for model, rows in found.items()
        for track, answers in _tracks(model, rows, keys, gold)
    }
    shown = {task.name for task in tasks if may_show(task.licence, texts)}
    kept = [name if name in shown else None for name in table["task"].to_pylist()]
    rows = table.select(list(_TEXTS)).to_pylist()
    return Board(
        tasks=tuple(tasks),
        languages=tuple(languages),
        task_index=table["task_place"].to_numpy(),
        language_index=table["language_place"].to_numpy(),
        gold=gold,
        num_choices=pc.list_value_length(table["choices"]).to_numpy().astype(np.int64),
        ids=table["id"].to_pylist(),
        texts=[_text(row) if name else None for row, name in zip(rows, kept, strict=True)],
        tracks=tracks,
    )


def _text(row: dict[str, Any]) -> dict[str, Any]:
    return row if row["context"] else {"stem": row["stem"], "choices": row["choices"]}


def check_questions(runs: Mapping[str, Path]) -> None:
    """Raise ``InputError`` if two runs have other questions under the name of one task and language.

    Their numbers would stand side by side and be of different things.
    """
    seen: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {}
    for run, folder in runs.items():
        for (task, language), own in _by_task(_test_questions(folder)).items():
            other, questions = seen.setdefault((task, language), (run, own))
            if questions != own and (why := contradiction(questions, own)):
                raise InputError(
                    f"runs {other} and {run}: have other questions of {task} ({language}): {why}; their "
                    "numbers cannot stand side by side; report them apart, or evaluate on the same "
                    "questions (evaluate.limit, benchmark.data)"
                )


def _by_task(table: pa.Table) -> dict[tuple[str, str], dict[str, Any]]:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in table.to_pylist():
        content = (row["stem"], tuple(row["choices"]), row["context"], row["gold"])
        found.setdefault((row["task"], row["language"]), {})[row["id"]] = content
    return found


def _united(tables: Sequence[pa.Table]) -> pa.Table:
    """Questions of several runs, each once."""
    united = tables[0]
    for table in tables[1:]:
        known = pc.is_in(_keys(table, _KEY), _keys(united, _KEY))
        united = pa.concat_tables([united, table.filter(pc.invert(known))])
    return united.combine_chunks()


def _test_questions(folder: Path) -> pa.Table:
    table = _read(folder / "questions.parquet", [*_KEY, "split", "gold", *_TEXTS])
    return table.filter(pc.equal(table["split"], "test")).drop_columns(["split"])


def _answered(questions: pa.Table, predictions: Mapping[str, pa.Table]) -> pa.Table:
    """Keep the questions that any model was asked."""
    names = ("language", "task", "question_id")
    asked = [_keys(table, names).unique() for table in predictions.values()]
    return questions.filter(pc.is_in(_keys(questions, _KEY), pa.concat_arrays(asked)))


def _in_order(table: pa.Table, tasks: Sequence[Task], languages: Sequence[str]) -> pa.Table:
    """Sort by language, then task, each in the order given, then as the questions come."""
    for name, order in (("language", list(languages)), ("task", [t.name for t in tasks])):
        places = pc.index_in(table[name], pa.array(order, pa.string()))
        table = table.append_column(f"{name}_place", places.cast(pa.int64()))
    table = table.filter(pc.is_valid(pc.add(table["language_place"], table["task_place"])))
    table = table.append_column("place", pa.array(np.arange(len(table))))
    by = [("language_place", "ascending"), ("task_place", "ascending"), ("place", "ascending")]
    return table.sort_by(by).combine_chunks()


def _tracks(
    model: str, table: pa.Table, keys: pa.Array, gold: Any
) -> Iterator[tuple[Track, TrackAnswers]]:
    """The answers of one model, apart by scoring and shots; answers to other questions left out."""
    rows = pc.index_in(_keys(table, ("language", "task", "question_id")), keys)
    table = table.append_column("row", rows)
    table = table.filter(pc.is_valid(table["row"]))
    settings = table.group_by(["scoring", "shots"], use_threads=False).aggregate([])
    for scoring, shots in sorted(
        zip(settings["scoring"].to_pylist(), settings["shots"].to_pylist(), strict=True),
        key=lambda setting: (setting[0] != "letter", setting),
    ):
        both = pc.and_(pc.equal(table["scoring"], scoring), pc.equal(table["shots"], shots))
        own = table.filter(both)
        row = own["row"].to_numpy().astype(np.int64)
        yield Track(model, scoring, shots), answers_of(row, _padded(own["logprobs"]), gold)


def _padded(lists: pa.ChunkedArray) -> Any:
    """Lists of numbers as one array (N, C), minus infinity where a list is shorter."""
    array = lists.combine_chunks()
    array = array if isinstance(array, pa.ListArray) else pa.concat_arrays([array])
    lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False)
    table = np.full((len(array), int(lengths.max(initial=1))), -np.inf)
    table[np.arange(table.shape[1]) < lengths[:, None]] = array.flatten().to_numpy()
    return table


def _keys(table: pa.Table, names: Sequence[str]) -> pa.Array:
    """One text for each row, that no other question has."""
    joined = pc.binary_join_element_wise(*(table[name] for name in names), "\0")
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined


def _read(path: Path, columns: list[str]) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); wanted is a Parquet file with the columns {columns}"
        ) from None


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
