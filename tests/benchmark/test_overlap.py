"""What is found of questions in texts, as an artefact."""

from __future__ import annotations

import pytest

from biomistral.artifacts import Origin, read_manifest
from biomistral.benchmark import find_overlap
from biomistral.errors import InputError
from biomistral.records import Question, TaskOverlap, read_records, write_records

LONG = "In the third valley a healer gave her patient the bark of a grey willow at dawn"
ORIGIN = Origin("overlap", "articles", {})


def test_the_table_counts_questions_and_the_manifest_documents(make_question, tmp_path):
    asked = [make_question(1, stem=LONG), make_question(2)]
    write_records(tmp_path / "questions.parquet", asked, Question)
    seen = []
    texts = iter(["nothing"] * 150 + [f"And then. {LONG}!"])
    out = find_overlap(
        tmp_path, texts, tmp_path / "out", origin=ORIGIN,
        progress=lambda done, total, text: seen.append((done, text)),
    )  # fmt: skip
    [line] = read_records(out / "overlap.parquet", TaskOverlap)
    assert line == TaskOverlap("herbs", "en", 2, 1, 1, 1, ("1",))
    manifest = read_manifest(out)
    assert manifest is not None
    wanted = {"documents": 151, "words_in_a_row": 13, "questions": 2, "found": 1}
    assert manifest["counts"] == wanted
    assert seen == [(100, "documents")]


def test_without_questions_nothing_is_made(tmp_path):
    with pytest.raises(InputError, match=r"questions\.parquet: cannot be read"):
        find_overlap(tmp_path, [LONG], tmp_path / "out", origin=ORIGIN)
    assert not (tmp_path / "out").exists()
