"""What is found of questions in the rows of a corpus, as an artefact."""

from __future__ import annotations

import numpy as np
import pytest

from biomistral.artifacts import Origin, read_manifest
from biomistral.benchmark import contamination, find_overlap, overlap
from biomistral.errors import InputError, ModelError
from biomistral.models.rows import Row, write_rows
from biomistral.models.vocabulary import vocabulary_digest
from biomistral.records import Question, TaskOverlap, read_records, write_records

LONG = "In the third valley a healer gave her patient the bark of a grey willow at dawn"
FOREIGN = "河谷的医者在黎明时分给她的病人灰柳树皮治疗热病。"
ORIGIN = Origin("overlap", "articles", {})


@pytest.fixture
def make_rows(tokenizer, tmp_path):
    """Return a function: texts of the training and the held-out rows -> their folder."""

    def make(train, held_out=(), tokenizer_sha256=None):
        def rows(texts):
            ids = [tokenizer(text)["input_ids"] for text in texts]
            return [Row((np.array(each),), (0,)) for each in ids]

        folder = tmp_path / "tokens"
        folder.mkdir(exist_ok=True)
        write_rows(
            folder, rows(train), rows(held_out), sequence_length=128,
            vocabulary_size=len(tokenizer), eos_id=tokenizer.eos_token_id,
            tokenizer_sha256=tokenizer_sha256 or vocabulary_digest(tokenizer),
        )  # fmt: skip
        return folder

    return make


@pytest.fixture
def questions(make_question, tmp_path):
    asked = [
        make_question(1, stem=LONG),
        make_question(2),
        make_question(3, stem=FOREIGN),
        make_question(4, stem=LONG.replace("bark", "root")),
    ]
    write_records(tmp_path / "questions.parquet", asked, Question)
    return tmp_path


def test_the_table_counts_questions_and_the_manifest_rows(
    questions, make_rows, tiny_model, tmp_path
):
    seen = []
    rows = make_rows(["nothing"] * 5 + [f"And then. {LONG.upper()}!"], [f"他说：{FOREIGN}"])
    out = find_overlap(
        questions, rows, tiny_model, tmp_path / "out", workers=1, origin=ORIGIN,
        progress=lambda done, total, _: seen.append((done, total)),
    )  # fmt: skip
    [line] = read_records(out / "overlap.parquet", TaskOverlap)
    # The fourth shares no 13 words: the changed one is in the middle.
    assert line == TaskOverlap("herbs", "en", 4, 1, 2, 2, ("1", "3"))
    manifest = read_manifest(out)
    assert manifest is not None
    wanted = {"rows": 7, "words_in_a_row": 13, "questions": 4, "found": 2}
    assert manifest["counts"] == wanted
    assert seen == [(0, 7), (6, 7), (7, 7)]


def test_rows_read_in_parts_give_what_texts_read_at_once_give(
    questions, make_rows, tiny_model, tmp_path, monkeypatch
):
    monkeypatch.setattr(overlap, "_PART_TOKENS", 256)
    texts = ["a b c", LONG[:60], LONG, FOREIGN[:14], "nothing", LONG.replace("bark", "root")]
    out = find_overlap(
        questions, make_rows(texts), tiny_model, tmp_path / "out", workers=1, origin=ORIGIN
    )
    asked = list(read_records(questions / "questions.parquet", Question))
    wanted = contamination.by_task(contamination.overlaps(asked, texts))
    assert list(read_records(out / "overlap.parquet", TaskOverlap)) == wanted
    assert wanted[0].num_found == 3


def test_rows_of_another_tokenizer_are_refused(questions, make_rows, tiny_model, tmp_path):
    rows = make_rows([LONG], tokenizer_sha256="0" * 64)
    with pytest.raises(ModelError, match="was cut by another tokenizer"):
        find_overlap(questions, rows, tiny_model, tmp_path / "out", origin=ORIGIN)
    assert not (tmp_path / "out").exists()


def test_without_questions_nothing_is_made(make_rows, tiny_model, tmp_path):
    with pytest.raises(InputError, match=r"questions\.parquet: there is no such file"):
        find_overlap(tmp_path, make_rows([LONG]), tiny_model, tmp_path / "out", origin=ORIGIN)
    assert not (tmp_path / "out").exists()
