"""The edge of contamination: questions and texts in, a table out.

    overlap.parquet   records.TaskOverlap: per task and language, how many questions were found

What counts as found is in ``contamination``; where texts come from is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from biomistral import artifacts
from biomistral.artifacts import Origin
from biomistral.benchmark.contamination import by_task, overlaps
from biomistral.ngrams import WIDTH
from biomistral.progress import Progress, ignore
from biomistral.records import Question, TaskOverlap, read_records, write_records

OVERLAP = "overlap.parquet"


def find_overlap(
    questions: Path,
    texts: Iterable[str],
    out: Path,
    *,
    origin: Origin,
    progress: Progress = ignore,
) -> Path:
    """Look for the test questions of a folder in texts, which are read once, and write the table.

    Raises ``InputError`` if the questions cannot be read.
    """
    num_texts = 0

    def counted() -> Iterator[str]:
        nonlocal num_texts
        for text in texts:
            num_texts += 1
            if num_texts % 100 == 0:
                progress(num_texts, None, "documents")
            yield text

    asked = list(read_records(questions / "questions.parquet", Question))
    with artifacts.create(out, origin) as draft:
        lines = by_task(overlaps(asked, counted()))
        write_records(draft.folder / OVERLAP, lines, TaskOverlap)
        draft.counts.update(
            documents=num_texts,
            words_in_a_row=WIDTH,
            questions=sum(line.num_questions for line in lines),
            found=sum(line.num_found for line in lines),
        )
    return out
