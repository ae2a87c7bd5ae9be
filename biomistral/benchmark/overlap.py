"""The edge of contamination: questions and packed rows of tokens in, a table out.

    overlap.parquet   records.TaskOverlap: per task and language, how many questions were found

The rows are turned back into text, so what is looked at is what a model is trained on (and held
out), and not what was sorted out before; it takes a fraction of the time that reading the articles
again would. A passage cut at the end of a row is two passages, as it is to the model. What counts as
found is in ``contamination``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from biomistral import artifacts
from biomistral.artifacts import Origin
from biomistral.benchmark.contamination import all_of, by_task, judge, runs_of, seen_in
from biomistral.models.loading import load_tokenizer
from biomistral.models.rows import PackedRows, Split
from biomistral.models.vocabulary import check_rows_fit
from biomistral.ngrams import WIDTH, Hashes, read_runs, write_runs
from biomistral.progress import Progress, ignore
from biomistral.records import Question, TaskOverlap, read_records, write_records
from biomistral.workers import num_processors, run_all

OVERLAP = "overlap.parquet"
_PART_TOKENS = 4_000_000  # three seconds of one core: a worker takes as long to start
_BATCH_ROWS = 256


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows that are read together."""

    split: Split
    start: int
    stop: int


def find_overlap(
    questions: Path,
    tokens: Path,
    tokenizer: Path,
    out: Path,
    *,
    workers: int | None = None,
    origin: Origin,
    progress: Progress = ignore,
) -> Path:
    """Look for the test questions of a folder in all rows of another, and write the table.

    ``tokenizer`` is the folder of the one that cut the rows. There are as many processes as
    ``workers`` says, by default one per processor, which has no effect on the result.

    Raises ``InputError`` if questions or rows cannot be read, ``ModelError`` if the rows were cut by
    another tokenizer.
    """
    wanted = runs_of(read_records(questions / "questions.parquet", Question))
    by_split = {split: PackedRows(tokens, split) for split in get_args(Split)}
    check_rows_fit(by_split["train"], load_tokenizer(tokenizer), by_split["train"].vocabulary_size)
    parts = [part for split, rows in by_split.items() for part in _parts(split, rows)]
    num_rows = sum(map(len, by_split.values()))
    is_small = num_rows * by_split["train"].sequence_length <= 2 * _PART_TOKENS
    num_workers = 1 if is_small else workers or num_processors()
    with artifacts.create(out, origin) as draft:
        known = draft.work / "runs.parquet"
        write_runs(known, [all_of(wanted)], WIDTH)
        work = functools.partial(_seen_in_part, tokens, tokenizer, known)
        seen: list[Hashes] = [np.empty(0, dtype=np.uint64)]
        done = 0
        progress(0, num_rows, "rows searched for test questions")
        for index, found in run_all(work, parts, num_workers):
            seen.append(found)
            done += parts[index].stop - parts[index].start
            progress(done, num_rows, "rows searched for test questions")
        lines = by_task(judge(wanted, np.unique(np.concatenate(seen))))
        write_records(draft.folder / OVERLAP, lines, TaskOverlap)
        draft.counts.update(
            rows=num_rows,
            words_in_a_row=WIDTH,
            questions=sum(line.num_questions for line in lines),
            found=sum(line.num_found for line in lines),
        )
    return out


def _parts(split: Split, rows: PackedRows) -> Iterator[_Part]:
    step = max(1, _PART_TOKENS // rows.sequence_length)
    for start in range(0, len(rows), step):
        yield _Part(split, start, min(start + step, len(rows)))


def _seen_in_part(tokens: Path, tokenizer: Path, known: Path, part: _Part) -> Hashes:
    return seen_in(
        _texts(PackedRows(tokens, part.split), _opened(tokenizer), part), *read_runs(known)
    )


@functools.lru_cache(maxsize=1)
def _opened(tokenizer: Path) -> Any:
    return load_tokenizer(tokenizer)


def _texts(rows: PackedRows, tokenizer: Any, part: _Part) -> Iterator[str]:
    """The text of each piece of some rows."""
    for start in range(part.start, part.stop, _BATCH_ROWS):
        pieces = []
        for index in range(start, min(start + _BATCH_ROWS, part.stop)):
            ids, lengths = rows[index]
            ends = np.cumsum(lengths)
            pieces += [piece.tolist() for piece in np.split(ids[: sum(lengths)], ends[:-1])]
        yield from tokenizer.batch_decode(
            pieces, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
