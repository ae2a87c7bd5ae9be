"""The records that travel between rooms, and how they lie in Parquet.

A record holds facts and no behaviour beyond checking itself. Accuracy, calibration, ensembles
and every table are functions of ``Prediction`` alone; nothing is ever read back from a file name.
Knows nothing about models, prompts or tasks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from biomistral.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

Split = Literal["train", "validation", "test"]
# How an answer is read off: see models/scoring.py.
Scoring = Literal["letter", "cloze", "published"]
LETTERS = "ABCDEFGHIJKLM"  # thirteen: no published question has more choices (TruthfulQA)
# In place of a log-probability where a model answered in words: of each choice it did not name. The
# one it named has 0; without an answer, all have this. No model gives a probability so small.
UNSAID = -10_000.0


# Around a control token in a prompt; noncharacters, which no text has (models/control_tokens.py).
MARKS = ("\ufdd0", "\ufdd1")


@dataclass(frozen=True, slots=True)
class Question:
    """One multiple-choice question. ``gold`` is an index into ``choices``, never a letter."""

    id: str  # unique within task, language and split; equal across languages for translations
    task: str
    language: str
    split: Split
    stem: str
    choices: tuple[str, ...]
    gold: int
    context: str = ""  # passage to read before the question; empty for most tasks
    # Worked examples published with the question, each as "seed:id of an example", in their order.
    stored_shots: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        where = f"question {self.id!r} of {self.task} ({self.language}, {self.split})"
        if any(mark in text for text in (self.stem, self.context, *self.choices) for mark in MARKS):
            raise InputError(f"{where}: holds U+FDD0 or U+FDD1, which are no characters of a text")
        if not self.stem.strip():
            raise InputError(f"{where}: the stem is empty")
        if not 2 <= len(self.choices) <= len(LETTERS):
            raise InputError(
                f"{where}: has {len(self.choices)} choices; allowed are 2 to {len(LETTERS)}"
            )
        if not 0 <= self.gold < len(self.choices):
            raise InputError(
                f"{where}: gold index {self.gold} is not the index of one of its "
                f"{len(self.choices)} choices (0 to {len(self.choices) - 1})"
            )


@dataclass(frozen=True, slots=True)
class Request:
    """One question as a model is to see it: a prompt and one continuation per choice."""

    question_id: str
    task: str
    language: str
    shots: int  # worked examples in the prompt
    seed: int  # that drew the examples
    scoring: Scoring
    prompt: str
    continuations: tuple[str, ...]
    gold: int
    # With the options in another order: at each place of the prompt, the index of the choice in the
    # question. Continuations and gold are in the question's order all the same. Empty: as it is.
    order: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one model gave to one request: natural-log probabilities, one per choice, in order."""

    question_id: str
    task: str
    language: str
    model: str
    shots: int
    seed: int
    scoring: Scoring
    logprobs: tuple[float, ...]
    gold: int
    top: str = ""  # the most probable token of the whole vocabulary; published scoring only
    order: tuple[int, ...] = ()  # in which the choices were shown, as in Request

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) and value <= 1e-3 for value in self.logprobs):
            raise InputError(
                f"prediction of {self.model} for question {self.question_id!r} of {self.task} "
                f"({self.language}): log-probabilities {list(self.logprobs)} must be finite and "
                "at most 0; the model is broken or was run in too low a precision"
            )


@dataclass(frozen=True, slots=True)
class Score:
    """One number of the results.

    ``task`` is a task's name, or ``average`` for the unweighted mean over the tasks of ``group``.
    ``low`` and ``high`` bound the 95 % interval; None where there is none.
    """

    model: str
    model_kind: Literal["model", "ensemble", "baseline"]
    task: str
    group: str  # of the task: medical, general, or what its task.yaml says
    language: str
    scoring: Scoring
    shots: int
    metric: str  # accuracy, accuracy_deviation, ece, ...
    value: float  # fractions, never percent
    low: float | None
    high: float | None
    num_questions: int
    num_seeds: int


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """One bar of a reliability diagram: all answers of a model with confidence in (low, high]."""

    model: str
    task: str  # or "average": all tasks of the group pooled
    group: str
    language: str
    scoring: Scoring
    low: float
    high: float
    num_answers: int
    mean_confidence: float
    accuracy: float
    calibration: str = ""  # by which the confidence was calibrated first: temperature, platt


@dataclass(frozen=True, slots=True)
class CoveragePoint:
    """Accuracy of a model on the share of the questions that it is surest of."""

    model: str
    task: str  # or "average": all tasks of the group pooled
    group: str
    language: str
    scoring: Scoring
    shots: int
    coverage: float  # share of the questions that are answered
    accuracy: float  # on these


@dataclass(frozen=True, slots=True)
class TaskOverlap:
    """How many test questions of a task stand in a corpus, word for word."""

    task: str
    language: str
    num_questions: int
    num_too_short: int  # to be judged
    num_found: int  # questions of which any run of words was found
    num_half_found: int  # questions of which half the runs or more were found
    examples: tuple[str, ...]  # ids of those with most, at most five


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models on the same questions. Fractions; positive where ``first`` is better."""

    first: str
    second: str
    task: str  # or "average" of the group
    group: str
    language: str
    scoring: Scoring
    shots: int
    difference: float  # of the accuracies
    low: float  # 95 % interval of the difference, paired bootstrap
    high: float
    p_bootstrap: float
    p_bootstrap_holm: float  # corrected over all tests of its kind in the comparison
    first_only: int  # questions that first answers better; 0 for averages
    second_only: int
    p_mcnemar: float | None  # None for averages, which have no such test
    p_mcnemar_holm: float | None
    odds_ratio: float | None  # first_only / second_only; None where the second is 0
    cohens_g: float | None  # share of first_only among both, less a half
    num_questions: int
    num_seeds: int


@dataclass(frozen=True, slots=True)
class LanguageGap:
    """What one model loses in another language: the same questions in both, paired by their ids."""

    model: str
    task: str  # or "average" of the group
    group: str
    language: str
    scoring: Scoring
    shots: int
    difference: float  # accuracy in the language less that in English; a fraction
    low: float  # 95 % interval, paired bootstrap
    high: float
    p_bootstrap_holm: float  # corrected over all tests of its kind
    num_questions: int
    num_seeds: int


@dataclass(frozen=True, slots=True)
class LayerDistance:
    """How far a model is from one that it was made from, in all, in a layer, or in a part of one."""

    model: str
    other: str
    layer: str  # model.layers.3, the name of a tensor outside the layers, or "all"
    kind: str  # attention, mlp, norm, other, or "all"
    num_elements: int
    relative_norm: float  # ||model - other|| / ||other||; infinite where only the other is zero
    cosine: float  # of the angle between the two, in [-1, 1]
    sign_agreement: float  # share of the elements that have the same sign, in [0, 1]


@dataclass(frozen=True, slots=True)
class Translation:
    """One question in another language, beside the original."""

    question_id: str
    task: str
    language: str
    split: Split
    gold: int
    state: Literal[
        "translated", "failed", "accepted", "edited", "rejected"
    ]  # the last three: people
    attempts: int
    faults: tuple[str, ...]  # of the last attempt
    source_stem: str
    source_choices: tuple[str, ...]
    source_context: str
    stem: str  # empty, as the rest, if nothing could be read
    choices: tuple[str, ...]
    context: str


@dataclass(frozen=True, slots=True)
class TranslationQuality:
    """What can be measured of one translation."""

    question_id: str
    task: str
    language: str
    split: Split
    length_ratio: float  # characters over those of the original
    num_terms: int  # numbers, units, genes, drugs that are looked for
    num_kept: int
    back: str  # translated back, all parts, one a line; empty if nobody did
    chrf: float | None  # of the back translation against the original, in [0, 100]


@dataclass(frozen=True, slots=True)
class Task:
    """What a table needs to know of a task."""

    name: str
    title: str  # as printed in tables
    group: str  # medical or general; averages are taken within a group
    source: str  # where the questions come from
    licence: str
    note: str = ""  # what a reader must know, such as where the worked examples come from


Record = TypeVar(
    "Record",
    Question,
    Prediction,
    Score,
    ReliabilityBin,
    CoveragePoint,
    Comparison,
    LanguageGap,
    LayerDistance,
    Task,
    TaskOverlap,
    Translation,
    TranslationQuality,
)


def write_records(
    path: Path,
    records: Iterable[Record],
    record_type: type[Record],
    *,
    metadata: Mapping[str, str] | None = None,
) -> int:
    """Write records to one Parquet file, in order, and return how many there were.

    ``metadata`` is kept in the file's schema.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = list(records)
    names = [field.name for field in fields(record_type)]
    columns = {name: [getattr(row, name) for row in rows] for name in names}
    table = pa.table(columns, schema=_schema(record_type).with_metadata(metadata))
    pq.write_table(table, path, compression="zstd")
    return len(rows)


def read_records(path: Path, record_type: type[Record]) -> Iterator[Record]:
    """Yield the records of one Parquet file, in order.

    Raises ``InputError`` if the file is missing, is no Parquet, or has other columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; name the folder that has it") from None
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: cannot be read as Parquet ({reason})") from None
    needed = {field.name for field in fields(record_type) if field.default is MISSING}
    if missing := needed - set(table.column_names):
        raise InputError(f"{path}: lacks the columns {sorted(missing)} of {record_type.__name__}")
    names = [field.name for field in fields(record_type) if field.name in table.column_names]
    for batch in table.select(names).to_batches():
        for row in batch.to_pylist():
            values: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value
                for key, value in row.items()
            }
            yield record_type(**values)


def _schema(record_type: type[Any]) -> pa.Schema:
    """Columns by the annotated type of each field; text where it is a Literal."""
    import pyarrow as pa

    arrow_types = {
        "int": pa.int64(),
        "float": pa.float64(),
        "float | None": pa.float64(),
        "tuple[str, ...]": pa.list_(pa.string()),
        "tuple[float, ...]": pa.list_(pa.float64()),
        "tuple[int, ...]": pa.list_(pa.int64()),
    }
    return pa.schema(
        [(f.name, arrow_types.get(str(f.type), pa.string())) for f in fields(record_type)]
    )
