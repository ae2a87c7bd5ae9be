"""Translations on a sheet for people, and back: accept, edit, reject.

One row per part of a question (context, question, A, B, ...), as CSV that spreadsheets open. A person
fills in ``decision`` and, to edit, ``corrected``:

    accept    the part is good as it is; all parts of a failed question accepted bring it back
    edit      take the text in ``corrected`` instead
    reject    the whole question is left out
    (empty)   nobody looked: as it is

Everything else on the sheet must stay as it was: it tells whether the sheet is of these translations.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import yaml

from biomistral import artifacts, versions
from biomistral.artifacts import Origin
from biomistral.errors import InputError, did_you_mean
from biomistral.records import Task, Translation, read_records
from biomistral.translation.parts import Parts
from biomistral.translation.step import GOOD, TRANSLATIONS, count, write_translations

COLUMNS = (
    *("task", "language", "id", "split", "part", "english", "translation", "faults"),
    *("decision", "corrected"),
)
DECISIONS = ("", "accept", "edit", "reject")

Key = tuple[str, str, str, str]  # task, language, question, split


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    key: Key
    part: str
    english: str
    decision: str
    corrected: str


def write_review(
    translations: Path, sheet: Path, *, which: Literal["all", "failed"] = "all"
) -> int:
    """Write the sheet of an artefact and return the number of questions on it.

    Failed questions come first. Raises ``InputError`` if the sheet is there already: somebody's
    decisions may be on it.
    """
    if sheet.exists():
        raise InputError(f"{sheet}: is there already, maybe with decisions; name another file")
    every = list(read_records(translations / TRANSLATIONS, Translation))
    chosen = [each for each in every if which == "all" or each.state == "failed"]
    chosen.sort(key=lambda each: each.state != "failed")  # stable
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\r\n")
    writer.writeheader()
    for each in chosen:
        given = dict(_translated(each).texts()) if each.stem else {}
        for index, (part, english) in enumerate(_source(each).texts()):
            row = dict(zip(COLUMNS, (each.task, each.language, each.question_id), strict=False))
            row |= {"split": each.split, "part": part, "english": english}
            row |= {"translation": given.get(part, "")}
            row |= {"faults": "; ".join(each.faults) if index == 0 else ""}
            writer.writerow(row)
    # With a mark of the order of bytes, or spreadsheets take UTF-8 for something else.
    sheet.write_text(text.getvalue(), encoding="utf-8-sig", newline="")
    return len(chosen)


def apply_review(translations: Path, sheet: Path, out: Path) -> Path:
    """Make the artefact ``out`` of ``translations`` and the decisions on a sheet.

    Raises ``InputError`` that names the line for a decision that is none, a text that should be
    there, a question that these translations do not have, or English that was changed.
    """
    every = list(read_records(translations / TRANSLATIONS, Translation))
    lines = list(_read_sheet(sheet))
    known = {_key(each): each for each in every}
    by_key: dict[Key, list[_Line]] = {}
    for line in lines:
        _check(line, known, sheet)
        by_key.setdefault(line.key, []).append(line)
    reviewed = [_decided(each, by_key.get(_key(each), []), sheet) for each in every]
    manifest = artifacts.read_manifest(translations)
    inputs = {
        "translations": artifacts.fingerprint_of_files([translations]),
        "decisions": artifacts.digest_of(
            [[*line.key, line.part, line.decision, line.corrected] for line in lines]
        ),
    }
    name = str((manifest or {}).get("name", "translations"))
    origin = Origin("translations", name, {}, inputs, versions.STEP_VERSIONS["translate"])
    tasks, translator = _tasks(translations, every)
    with artifacts.create(out, origin) as draft:
        write_translations(draft.folder, reviewed, tasks, translator)
        draft.counts.update(count(reviewed))
    return out


def _read_sheet(sheet: Path) -> Iterator[_Line]:
    try:
        text = sheet.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{sheet}: cannot be read as UTF-8 ({error}); export it as CSV") from None
    # Spreadsheets of many countries put semicolons between columns.
    delimiter = (
        ";" if text.split("\n", 1)[0].count(";") > text.split("\n", 1)[0].count(",") else ","
    )
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        if missing := [name for name in COLUMNS if name not in (rows.fieldnames or [])]:
            raise InputError(f"{sheet}: lacks the columns {', '.join(missing)}; they must all stay")
        for row in rows:
            key = (row["task"], row["language"], row["id"], row["split"])
            decision = (row["decision"] or "").strip().lower()
            corrected = (row["corrected"] or "").strip()
            yield _Line(rows.line_num, key, row["part"], row["english"] or "", decision, corrected)
    except csv.Error as error:
        raise InputError(f"{sheet}, line {rows.line_num}: is no CSV ({error})") from None


def _check(line: _Line, known: Mapping[Key, Translation], sheet: Path) -> None:
    where = f"{sheet}, line {line.number}"
    if line.key not in known:
        raise InputError(
            f"{where}: there is no question {line.key[2]!r} of {line.key[0]} in {line.key[1]} "
            f"({line.key[3]}) in these translations; is it the sheet of others?"
        )
    texts = dict(_source(known[line.key]).texts())
    # Spreadsheets rewrite ends of lines.
    if " ".join(texts.get(line.part, "").split()) != " ".join(line.english.split()):
        raise InputError(
            f"{where}: the English of part {line.part!r} is not that of these translations; only "
            "decision and corrected may be filled in"
        )
    if line.decision not in DECISIONS:
        raise InputError(
            f"{where}: decision is {line.decision!r}; allowed are accept, edit, reject or nothing"
            f"{did_you_mean(line.decision, DECISIONS)}"
        )
    if line.decision == "edit" and not line.corrected:
        raise InputError(f"{where}: decision is edit, and corrected is empty; write the text there")
    if line.corrected and line.decision != "edit":
        raise InputError(f"{where}: corrected has a text, so decision must be edit")


def _decided(each: Translation, lines: Sequence[_Line], sheet: Path) -> Translation:
    """Apply the decisions on one question."""
    decisions = {line.part: line for line in lines if line.decision}
    if not decisions:
        return each
    if any(line.decision == "reject" for line in decisions.values()):
        return replace(each, state="rejected")
    texts = dict(_translated(each).texts()) if each.stem else {}
    texts |= {part: line.corrected for part, line in decisions.items() if line.decision == "edit"}
    due = [part for part, _ in _source(each).texts()]
    if each.state not in GOOD and any(part not in decisions for part in due):
        return each  # only what somebody looked at as a whole comes back
    if missing := [part for part in due if not texts.get(part)]:
        raise InputError(
            f"{sheet}, line {lines[0].number}: question {each.question_id!r} has no translation of "
            f"{', '.join(missing)} to accept; edit these parts, or leave the question as it is"
        )
    edited = any(line.decision == "edit" for line in decisions.values())
    letters = [part for part in due if len(part) == 1]
    return replace(
        each,
        state="edited" if edited else "accepted",
        faults=(),
        stem=texts["question"],
        choices=tuple(texts[letter] for letter in letters),
        context=texts.get("context", ""),
    )


def _tasks(folder: Path, every: Sequence[Translation]) -> tuple[list[Task], str]:
    """Read the tasks back, and who translated them."""
    tasks, translator = [], "a model"
    for name in dict.fromkeys(each.task for each in every):
        path = folder / name / "task.yaml"
        if path.is_file():
            said = yaml.safe_load(path.read_text(encoding="utf-8"))
            source, _, translator = said["source"].rpartition("; translated by ")
            tasks.append(Task(name, said["title"], said["group"], source, said["licence"]))
        else:  # nothing of it was good enough
            tasks.append(Task(name, name, "medical", name, "as the English questions"))
    return tasks, translator


def _key(each: Translation) -> Key:
    return each.task, each.language, each.question_id, each.split


def _source(each: Translation) -> Parts:
    return Parts(each.source_stem, each.source_choices, each.source_context)


def _translated(each: Translation) -> Parts:
    return Parts(each.stem, each.choices, each.context)
