"""Read sample questions with their predictions: the edge of ``samples``. Files can be large."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from biomistral.errors import InputError
from biomistral.records import Prediction, Question, Task
from biomistral.reporting.results import Results
from biomistral.reporting.samples import Sample, choose, make_sample

_Row = TypeVar("_Row", Question, Prediction)


def read_samples(
    questions_folder: Path, predictions: Mapping[str, Path], results: Results, tasks: Sequence[Task]
) -> list[Sample]:
    """Draw sample questions of ``tasks`` and join them with predictions in the main scoring."""
    files = [folder / "predictions.parquet" for folder in predictions.values()]
    if not results.settings or not files:
        return []
    scoring = results.settings[0].scoring
    titles = {task.name: task.title for task in tasks}
    answered = [key for key in _answered(files[0], scoring) if key[1] in titles]
    keys = choose(answered, results.languages)
    if not keys:  # no texts may be shown
        return []
    ids = [id_ for _, _, id_ in keys]
    questions = {
        (q.language, q.task, q.id): q
        for q in _rows_of(questions_folder / "questions.parquet", "id", ids, Question)
        if q.split == "test"
    }
    answers: dict[tuple[str, str, str], list[Prediction]] = {key: [] for key in keys}
    for file in files:
        for p in _rows_of(file, "question_id", ids, Prediction):
            key = (p.language, p.task, p.question_id)
            if p.scoring == scoring and key in answers:
                answers[key].append(p)
    return [
        make_sample(questions[key], titles[key[1]], answers[key], results.models)
        for key in keys
        if key in questions
    ]


def _answered(path: Path, scoring: str) -> list[tuple[str, str, str]]:
    """Language, task and id of the questions in a file of predictions, each once, in order."""
    names = ["language", "task", "question_id"]
    table = _read_table(path, names, [("scoring", "=", scoring)])
    rows = table.group_by(names, use_threads=False).aggregate([])
    return sorted(zip(*(rows.column(name).to_pylist() for name in names), strict=True))


def _rows_of(path: Path, column: str, values: Sequence[str], kind: type[_Row]) -> list[_Row]:
    """Read only the records whose ``column`` is one of ``values``: files can be large."""
    there = _column_names(path)
    names = [f.name for f in fields(kind) if f.default is MISSING or f.name in there]
    rows = _read_table(path, names, [(column, "in", list(values))]).to_pylist()
    make: Any = kind
    return [
        make(**{key: tuple(v) if isinstance(v, list) else v for key, v in row.items()})
        for row in rows
    ]


def _column_names(path: Path) -> list[str]:
    """Names of the columns of a file; files of older versions lack some that have a default."""
    return pq.read_schema(path).names if path.is_file() else []


def _read_table(path: Path, columns: list[str], filters: list[tuple[str, str, Any]]) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns, filters=filters)
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); wanted is a Parquet file with the columns {columns}"
        ) from None
