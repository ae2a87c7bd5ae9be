from __future__ import annotations

import csv

import pytest

from biomistral.errors import InputError
from biomistral.records import Translation, read_records
from biomistral.translation import apply_review, translate_questions, write_review
from biomistral.translation.step import TRANSLATIONS


@pytest.fixture
def translations(interpreter, settings_for, task, questions, tmp_path):
    """Of which q1 failed: a number is wrong."""

    def spoil(good, body):
        fever = "fever" in body["messages"][1]["content"]
        return {**good, "question": good["question"].replace("39", "93")} if fever else good

    settings = settings_for(interpreter(spoil), attempts=1)
    return translate_questions(settings, {task: questions}, tmp_path / "out")


def decide(sheet, decisions):
    """Fill in a sheet: {(id, split, part): (decision, corrected)}."""
    with sheet.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        found = decisions.get((row["id"], row["split"], row["part"]))
        row["decision"], row["corrected"] = found or ("", "")
    with sheet.open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def states(folder):
    return {
        (row.question_id, row.split): row
        for row in read_records(folder / TRANSLATIONS, Translation)
    }


def test_a_sheet_without_decisions_changes_nothing(translations, tmp_path) -> None:
    sheet = tmp_path / "sheet.csv"
    assert write_review(translations, sheet) == 3
    out = apply_review(translations, sheet, tmp_path / "reviewed")
    for file in ("valley/fr/test.jsonl", "valley/task.yaml", TRANSLATIONS):
        assert (out / file).read_bytes() == (translations / file).read_bytes()


def test_failed_questions_come_first_and_can_be_all_there_is(translations, tmp_path) -> None:
    assert write_review(translations, tmp_path / "failed.csv", which="failed") == 1
    text = (tmp_path / "failed.csv").read_text(encoding="utf-8-sig")
    assert "number 39" in text
    assert "q2" not in text


def test_decisions_are_applied(translations, tmp_path) -> None:
    sheet = tmp_path / "sheet.csv"
    write_review(translations, sheet)
    mended = "Lequel abaisse une fièvre de 39 °C ?"
    accepted = {("q1", "test", part): ("accept", "") for part in "ABC"}
    decide(
        sheet,
        {
            **accepted,
            ("q1", "test", "question"): ("edit", mended),
            ("q2", "test", "A"): ("reject", ""),
            ("q3", "train", "A"): ("accept", ""),
        },
    )
    found = states(apply_review(translations, sheet, tmp_path / "reviewed"))
    assert found["q1", "test"].state == "edited"
    assert found["q1", "test"].stem == mended
    assert found["q2", "test"].state == "rejected"
    assert found["q3", "train"].state == "accepted"
    rows = (tmp_path / "reviewed/valley/fr/test.jsonl").read_text()
    assert mended in rows
    assert "q2" not in rows


def test_a_failed_question_comes_back_only_as_a_whole(translations, tmp_path) -> None:
    sheet = tmp_path / "sheet.csv"
    write_review(translations, sheet)
    decide(sheet, {("q1", "test", "A"): ("accept", "")})
    found = states(apply_review(translations, sheet, tmp_path / "reviewed"))
    assert found["q1", "test"].state == "failed"


def test_a_sheet_may_come_back_with_semicolons(translations, tmp_path) -> None:
    sheet = tmp_path / "sheet.csv"
    write_review(translations, sheet)
    with sheet.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.reader(stream))
    with sheet.open("w", encoding="utf-8-sig", newline="") as stream:
        csv.writer(stream, delimiter=";").writerows(rows)
    apply_review(translations, sheet, tmp_path / "reviewed")


@pytest.mark.parametrize(
    ("decision", "wrong"),
    [
        (("acept", ""), 'did you mean "accept"'),
        (("edit", " "), "corrected is empty"),
        (("", "better"), "decision must be edit"),
    ],
)
def test_what_is_no_decision_is_refused_with_its_line(
    translations, tmp_path, decision, wrong
) -> None:
    sheet = tmp_path / "sheet.csv"
    write_review(translations, sheet)
    decide(sheet, {("q2", "test", "A"): decision})
    with pytest.raises(InputError, match=rf"sheet.csv, line \d+: .*{wrong}"):
        apply_review(translations, sheet, tmp_path / "reviewed")
    assert not (tmp_path / "reviewed").exists()


def test_a_sheet_of_other_translations_is_refused(translations, tmp_path) -> None:
    sheet = tmp_path / "sheet.csv"
    write_review(translations, sheet)
    text = sheet.read_text(encoding="utf-8-sig")
    sheet.write_text(text.replace("Bark", "Stone"), encoding="utf-8-sig")
    with pytest.raises(InputError, match="the English of part 'A' is not that"):
        apply_review(translations, sheet, tmp_path / "reviewed")
    sheet.write_text(text.replace("q2", "q9"), encoding="utf-8-sig")
    with pytest.raises(InputError, match="there is no question 'q9'"):
        apply_review(translations, sheet, tmp_path / "reviewed")
    sheet.write_text(text.replace("decision", "verdict"), encoding="utf-8-sig")
    with pytest.raises(InputError, match="lacks the columns decision"):
        apply_review(translations, sheet, tmp_path / "reviewed")


def test_a_sheet_with_decisions_is_not_written_over(translations, tmp_path) -> None:
    (tmp_path / "sheet.csv").write_text("mine")
    with pytest.raises(InputError, match="is there already"):
        write_review(translations, tmp_path / "sheet.csv")
