from __future__ import annotations

from dataclasses import replace

import pytest

from biomistral.artifacts import write_json
from biomistral.errors import InputError
from biomistral.records import Translation, TranslationQuality, write_records
from biomistral.reporting.translations import document_of, read_totals, write_page

GOOD = Translation(
    *("q1", "valley", "ar", "test", 0, "translated", 2, ()),
    *("Give <5> mg", ("Bark", "Water"), "", "أعط <5> ملغ", ("لحاء", "ماء"), ""),
)
FAILED = replace(GOOD, question_id="q2", state="failed", faults=("it reads as English",))
ROW = TranslationQuality("q1", "valley", "ar", "test", 0.8, 2, 1, "Give <5> mg now", 61.2)
TOTALS = {
    "signatures": {"chrf": "chrF2|version:2"},
    "rows": [
        {
            "task": "valley",
            "language": "ar",
            "questions": 2,
            "translated": 1,
            "failed": 1,
            "reviewed": 0,
            "collisions": 1,
            "tried_again": 2,
            "length_ratio": 0.8,
            "terms": 2,
            "terms_kept": 0.5,
            "chrf": 61.2,
            "bleu": 40.0,
        }
    ],
}


def test_the_page_shows_totals_the_worst_and_the_failed() -> None:
    document = document_of([GOOD, FAILED], [ROW], TOTALS)
    assert [section.id for section in document.sections] == ["totals", "worst", "failed"]
    (pair,) = document.sections[1].pairs
    assert [version.title for version in pair.versions] == ["English", "Arabic", "Back in English"]
    assert pair.versions[1].direction == "rtl"
    assert "chrF 61" in pair.note
    assert document.sections[2].pairs[0].note == "it reads as English"


def test_the_worst_come_first() -> None:
    others = [replace(GOOD, question_id=name) for name in ("a", "b", "c")]
    rows = [
        replace(ROW, question_id="a", chrf=90.0),
        replace(ROW, question_id="b", chrf=20.0),
        replace(ROW, question_id="c", chrf=90.0, num_kept=0),
    ]
    pairs = document_of(others, rows, TOTALS).sections[1].pairs
    assert [pair.title.split(", ")[1] for pair in pairs] == ["b", "c", "a"]


def test_too_long_is_as_bad_as_too_short() -> None:
    ratios = {"a": 0.5, "b": 3.0, "c": 1.1}
    every = [replace(GOOD, question_id=name) for name in ratios]
    rows = [replace(ROW, question_id=name, length_ratio=r) for name, r in ratios.items()]
    rows[1] = replace(rows[1], num_terms=0, num_kept=0)
    rows = [replace(row, num_kept=row.num_terms) for row in rows]
    pairs = document_of(every, rows, TOTALS).sections[1].pairs
    assert [pair.title.split(", ")[1] for pair in pairs] == ["b", "a", "c"]
    assert ["no terms" in pair.note for pair in pairs] == [True, False, False]


@pytest.mark.parametrize("every", [[GOOD], [GOOD, FAILED]])
def test_the_page_is_one_file_and_escapes_texts(tmp_path, every) -> None:
    (tmp_path / "fr").mkdir()
    (tmp_path / "quality").mkdir()
    write_records(tmp_path / "fr/translations.parquet", every, Translation)
    write_records(tmp_path / "quality/quality.parquet", [ROW], TranslationQuality)
    write_json(tmp_path / "quality/totals.json", TOTALS)
    write_page(tmp_path / "fr", tmp_path / "quality", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert 'dir="rtl"' in page
    assert "&lt;5&gt;" in page
    assert "<5>" not in page
    assert ("Failed</h2>" in page) == (FAILED in every)


def test_texts_of_a_task_that_may_not_be_passed_on_are_counted_and_not_shown() -> None:
    def of(task: str) -> list[Translation]:
        return [replace(each, task=task) for each in (GOOD, FAILED)]

    document = document_of(
        [*of("valley"), *of("secret")],
        [ROW, replace(ROW, task="secret")],
        TOTALS,
        lambda task: task != "secret",
    )
    pairs = [pair for section in document.sections for pair in section.pairs]
    assert {pair.title.split(",")[0] for pair in pairs} == {"valley"}
    assert "Texts of secret are not shown: their licence may forbid it." in document.findings
    assert document.facts["failed"] == "2"


def test_totals_that_are_not_there_are_named_with_the_way_to_them(tmp_path) -> None:
    with pytest.raises(InputError, match=r"totals\.json: cannot be read .* translate quality"):
        read_totals(tmp_path)
