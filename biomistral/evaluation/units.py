"""Answers that are kept: one file per unit of work, found again by what decided them.

A *unit* is all requests to one model with one task, language, number of shots, seed and scoring. Its
key is a digest of everything its answers depend on: the bytes of the model, the requests to the
letter (so template, examples, data and choices), the precision and the engine. A file is therefore
never outdated: whoever asks anything else asks under another key.

    <key>.parquet            a whole unit: records.Prediction without the model's name
    <key>.unfinished.jsonl   a unit being scored: one line per finished batch

A file says in its metadata what its key is of, so that a later version, which asks otherwise, can say
why it does not use it. The second kind is written line by line while a batch follows the other, so a process that is killed
loses the batch in flight. Two processes may share a folder; one unit is scored by one of them.

Knows nothing about models, prompts or how answers come about.
"""

from __future__ import annotations

import dataclasses
import fcntl
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from biomistral import artifacts
from biomistral.errors import InputError
from biomistral.records import Prediction, Request, write_records

_COST, _MADE_FROM = b"cost", b"made_from"
_PLACE = ("task", "language", "shots", "seed", "scoring")
# Why kept answers to the same task are not used; by what is not the same.
_WHY = {
    "version": "they are of version {then} of the engine, which is {now} now",
    "engine": "they are of the engine {then}, and {now} is asked now",
    "precision": "they were computed in {then}, and {now} is asked for now",
    "requests": "questions, worked examples or prompt are not the same as then",
    "": "something that they depend on is not the same as then",
}
_UNKNOWN = "they are of an earlier version of this package and do not say what they were made from"
_OF_BOTH = sorted(
    {f.name for f in dataclasses.fields(Request)} & {f.name for f in dataclasses.fields(Prediction)}
)


@dataclass(frozen=True)
class Unit:
    """Requests that are scored together, and the key of their answers."""

    requests: Sequence[Request]
    key: str
    made_from: Mapping[str, Any] = field(default_factory=dict)  # what the key is of

    @property
    def words(self) -> str:
        """What it is, for a person."""
        first = self.requests[0]
        return f"{first.task}, {first.language}, seed {first.seed}, {first.scoring}"


def cut(requests: Iterable[Request], facts: Mapping[str, Any]) -> Iterator[Unit]:
    """Cut requests where task, language, shots, seed or scoring changes.

    ``facts`` are what else the answers depend on, as JSON values.
    """
    for _, group in itertools.groupby(
        requests, key=lambda r: (r.task, r.language, r.shots, r.seed, r.scoring)
    ):
        unit = list(group)
        asked = [dataclasses.asdict(request) for request in unit]
        made_from = {**facts, "requests": artifacts.digest_of(asked)}
        yield Unit(unit, artifacts.digest_of([facts, asked]), made_from)


class Store:
    """A folder of answers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, unit: Unit, model: str) -> tuple[pa.Table, dict[str, Any]] | None:
        """Return a unit's predictions under a model's name and what they cost; None if not there."""
        path = self._path(unit)
        try:
            table = pq.read_table(path)
            cost = json.loads((table.schema.metadata or {})[_COST])
        except FileNotFoundError:
            return None
        except (OSError, KeyError, ValueError, pa.ArrowException) as error:
            if getattr(error, "errno", None) is not None:
                raise  # the system's: what is in the file is as good as ever
            path.unlink()  # a disk that was full, a machine that lost power: not worth an error
            return None
        if table.num_rows != len(unit.requests):
            return None
        names = pa.array([model] * table.num_rows, pa.string())
        place = table.column_names.index("model")
        table = table.set_column(place, "model", names).replace_schema_metadata(None)
        return table, cost

    def has(self, unit: Unit) -> bool:
        """Whether a whole unit is kept."""
        return self._path(unit).is_file()

    def outdated(self, units: Iterable[Unit]) -> dict[str, list[Unit]]:
        """Units of which answers of the same model are kept, but not to be used; by why not.

        Answers are to the same where the first question of a file is among those asked: a task's
        validation questions are others. Files that do not say of which model they are count, too.
        """
        missing = [unit for unit in units if not self.has(unit)]
        kept = self._made_from() if missing else {}
        found: dict[str, list[Unit]] = {}
        for unit in missing:
            first = unit.requests[0]
            ids = {request.question_id for request in unit.requests}
            there = [
                made_from
                for question_id, made_from in kept.get(
                    tuple(str(getattr(first, name)) for name in _PLACE), []
                )
                if question_id in ids
            ]
            if why := _why_not(unit.made_from, there):
                found.setdefault(why, []).append(unit)
        return found

    def _made_from(self) -> dict[tuple[str, ...], list[tuple[str, dict[str, Any]]]]:
        """First question of the files there and what they were made from, by task and the rest.

        That is {} where a file does not say.
        """
        found: dict[tuple[str, ...], list[tuple[str, dict[str, Any]]]] = {}
        for path in sorted(self.folder.glob("*.parquet")):
            try:
                with pq.ParquetFile(path) as file:
                    made_from = json.loads(
                        (file.schema_arrow.metadata or {}).get(_MADE_FROM, b"{}")
                    )
                    row = next(file.iter_batches(1, columns=["question_id", *_PLACE])).to_pylist()[
                        0
                    ]
            except (OSError, ValueError, StopIteration, IndexError, pa.ArrowException):
                continue  # whoever reads it removes it
            place = tuple(str(row[name]) for name in _PLACE)
            found.setdefault(place, []).append((row["question_id"], made_from))
        return found

    def begin(self, unit: Unit) -> Unfinished:
        """Open a unit to score what is left of it; use it in a ``with`` block.

        Raises ``InputError`` if another process is at it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        return Unfinished(unit, self._path(unit))

    def _path(self, unit: Unit) -> Path:
        return self.folder / f"{unit.key[:40]}.parquet"


@dataclass
class Unfinished:
    """A unit of which some answers may be there. ``keep`` adds more, ``finish`` closes it."""

    unit: Unit
    path: Path
    answers: dict[int, tuple[tuple[float, ...], str]] = field(default_factory=dict)
    resumed: bool = False

    def __enter__(self) -> Self:
        self._draft = self.path.with_suffix(".unfinished.jsonl")
        self._stream = self._draft.open("a+b")
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._stream.close()
            raise InputError(
                f"{self._draft}: another process is scoring {self.unit.words}; wait for it, or "
                "stop it (what it has finished is kept)"
            ) from None
        self._read()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self.answers:
            self._draft.unlink(missing_ok=True)
        self._stream.close()

    @property
    def missing(self) -> list[int]:
        """Indices of the requests that have no answer yet."""
        return [i for i in range(len(self.unit.requests)) if i not in self.answers]

    def keep(
        self, indices: Sequence[int], logprobs: Sequence[tuple[float, ...]], tops: Sequence[str]
    ) -> None:
        """Keep the answers of one batch."""
        for index, row, top in zip(indices, logprobs, tops, strict=True):
            self.answers[index] = (tuple(row), top)
        line = json.dumps([list(map(int, indices)), [list(row) for row in logprobs], list(tops)])
        self._stream.write(line.encode() + b"\n")
        self._stream.flush()  # to the system: it survives the process, if not the machine

    def finish(self, cost: Mapping[str, Any]) -> None:
        """Write the whole unit; ``cost`` are JSON values to keep with it."""
        records = (
            _prediction(request, *self.answers[index])
            for index, request in enumerate(self.unit.requests)
        )
        draft = self.path.with_suffix(f".{os.getpid()}.writing")
        metadata = {
            _COST.decode(): json.dumps(dict(cost)),
            _MADE_FROM.decode(): json.dumps(dict(self.unit.made_from), sort_keys=True),
        }
        write_records(draft, records, Prediction, metadata=metadata)
        artifacts.flush(draft)
        draft.rename(self.path)
        self._draft.unlink(missing_ok=True)

    def _read(self) -> None:
        """Take over what an interrupted run has kept, up to the first line that is not whole."""
        self._stream.seek(0)
        good = 0
        for line in self._stream:
            try:
                indices, logprobs, tops = json.loads(line if line.endswith(b"\n") else b"")
            except ValueError:
                break
            rows = (tuple(row) for row in logprobs)
            self.answers.update(zip(indices, zip(rows, tops, strict=True), strict=True))
            good += len(line)
        self._stream.truncate(good)
        self.resumed = bool(self.answers)


def _why_not(now: Mapping[str, Any], kept: Sequence[Mapping[str, Any]]) -> str:
    """Say why none of the kept answers is used; "" if all are known to be of other models."""
    same_model = [then for then in kept if then and then.get("model") == now.get("model")]
    if same_model:
        differing = [
            sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
            for then in same_model
        ]
        index = min(range(len(differing)), key=lambda i: len(differing[i]))
        then = same_model[index]
        # That of the engine first: where it is another one, its version says nothing.
        name = next((name for name in ("engine", *_WHY) if name in differing[index]), "")
        return _WHY[name].format(then=then.get(name), now=now.get(name))
    return _UNKNOWN if any(not then for then in kept) else ""


def _prediction(request: Request, logprobs: tuple[float, ...], top: str) -> Prediction:
    values: dict[str, Any] = {name: getattr(request, name) for name in _OF_BOTH}
    return Prediction(**values, model="", logprobs=logprobs, top=top)
