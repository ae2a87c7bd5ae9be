from __future__ import annotations

import csv
import io

import pytest

from biomistral.errors import InputError
from biomistral.records import Translation, read_records, write_records
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


def test_what_failed_stands_before_what_did_not(translations, tmp_path) -> None:
    out = tmp_path / "turned"
    out.mkdir()
    every = list(read_records(translations / TRANSLATIONS, Translation))
    assert [each.state for each in reversed(every)] == ["translated", "translated", "failed"]
    write_records(out / TRANSLATIONS, every[::-1], Translation)
    write_review(out, tmp_path / "sheet.csv")
    assert list(dict.fromkeys(row["id"] for row in rows_of(tmp_path / "sheet.csv"))) == [
        *("q1", "q3", "q2"),
    ]


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


def rows_of(sheet):
    with sheet.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream))


def write_rows(sheet, rows, **how):
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], **how)
    writer.writeheader()
    writer.writerows(rows)
    sheet.write_text(text.getvalue(), encoding="utf-8", newline="")


@pytest.mark.parametrize("how", [{"delimiter": "\t"}, {"lineterminator": "\n"}, {"quoting": 1}])
def test_a_sheet_may_come_back_reordered_and_with_rows_of_nothing(
    translations, tmp_path, how
) -> None:
    sheet = tmp_path / "sheet.csv"
    write_review(translations, sheet)
    rows = rows_of(sheet)
    next(row for row in rows if row["id"] == "q3" and row["part"] == "B")["decision"] = " Accept "
    empty = dict.fromkeys(rows[0], "")
    turned = [{name: row[name] for name in reversed(row)} for row in [*reversed(rows), empty]]
    write_rows(sheet, turned, **how)
    found = states(apply_review(translations, sheet, tmp_path / "reviewed"))
    assert found["q3", "train"].state == "accepted"
    assert found["q2", "test"].state == "translated"


def test_what_spreadsheets_take_for_dates_and_formulas_may_be_rewritten(tmp_path) -> None:
    from biomistral.records import Task
    from biomistral.translation.step import write_translations

    (tmp_path / "made").mkdir()
    options = ("1/2", "-ve", "SEPT2")
    each = Translation(
        "q1", "valley", "fr", "test", 0, "translated", 1, (),
        "Which of these is it?", options, "", "Lequel est-ce ?", options, "",
    )  # fmt: skip
    task = Task("valley", "Valley", "medical", "own", "CC0")
    write_translations(tmp_path / "made", [each], [task], "served")
    sheet = tmp_path / "sheet.csv"
    write_review(tmp_path / "made", sheet)
    rows = rows_of(sheet)
    for row, shown in zip(rows[1:], ("2-Jan", "#NAME?", "2-Sep"), strict=True):
        row |= {"english": shown, "translation": shown, "decision": "accept"}
    write_rows(sheet, rows)
    (found,) = states(apply_review(tmp_path / "made", sheet, tmp_path / "reviewed")).values()
    assert (found.state, found.choices) == ("accepted", options)


def test_two_decisions_on_one_part_must_agree(translations, tmp_path) -> None:
    sheet = tmp_path / "sheet.csv"
    write_review(translations, sheet)
    rows = rows_of(sheet)
    same = {**rows[-1], "decision": "accept"}
    write_rows(sheet, [*rows[:-1], same, same])
    apply_review(translations, sheet, tmp_path / "reviewed")
    write_rows(sheet, [*rows[:-1], same, {**same, "decision": "reject"}])
    with pytest.raises(InputError, match=r"line \d+: part C of question .* line \d+, too"):
        apply_review(translations, sheet, tmp_path / "again")


def test_an_edit_may_not_make_two_options_equal(translations, tmp_path) -> None:
    sheet = tmp_path / "sheet.csv"
    write_review(translations, sheet)
    decide(sheet, {("q2", "test", "B"): ("edit", "Repos ")})
    with pytest.raises(InputError, match="options B and C of question 'q2' would both be 'Repos'"):
        apply_review(translations, sheet, tmp_path / "reviewed")


def test_what_is_no_sheet_is_told(translations, tmp_path) -> None:
    with pytest.raises(InputError, match="is the folder of the translations themselves"):
        apply_review(translations, tmp_path / "none.csv", translations)
    with pytest.raises(InputError, match="there is no such file"):
        apply_review(translations, tmp_path / "none.csv", tmp_path / "reviewed")
    sheet = tmp_path / "sheet.csv"
    write_review(translations, sheet)
    sheet.write_bytes(sheet.read_text(encoding="utf-8-sig").encode("cp1252"))
    with pytest.raises(InputError, match="save it as CSV UTF-8"):
        apply_review(translations, sheet, tmp_path / "reviewed")


def test_a_part_that_the_question_does_not_have_is_told(translations, tmp_path) -> None:
    sheet = tmp_path / "sheet.csv"
    write_review(translations, sheet)
    rows = rows_of(sheet)
    write_rows(sheet, [{**rows[0], "part": "Z", "english": ""}])
    with pytest.raises(InputError, match="has no part 'Z'; allowed are question, A, B, C"):
        apply_review(translations, sheet, tmp_path / "reviewed")
