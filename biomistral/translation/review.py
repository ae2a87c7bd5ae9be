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
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
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
    if out.resolve() == translations.resolve():
        raise InputError(
            f"{out}: is the folder of the translations themselves; name another one for the "
            "reviewed, so that the sheet still fits"
        )
    every = list(read_records(translations / TRANSLATIONS, Translation))
    lines = list(_read_sheet(sheet))
    known = {_key(each): each for each in every}
    by_key: dict[Key, list[_Line]] = {}
    for line in lines:
        _check(line, known, sheet)
        own = by_key.setdefault(line.key, [])
        _check_repeated(line, own, sheet)
        own.append(line)
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
    if not sheet.is_file():
        raise InputError(f"{sheet}: there is no such file; name the CSV file that people filled in")
    try:
        text = sheet.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{sheet}: cannot be read as UTF-8 ({error}); save it as CSV UTF-8, not as a workbook "
            "or as CSV in the encoding of the system"
        ) from None
    # Spreadsheets of many countries put semicolons between columns, and some programs tabs.
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        if missing := [name for name in COLUMNS if name not in (rows.fieldnames or [])]:
            raise InputError(f"{sheet}: lacks the columns {', '.join(missing)}; they must all stay")
        for row in rows:
            given = {name: (row[name] or "").strip() for name in COLUMNS}
            if any(given.values()):  # spreadsheets leave empty rows behind
                key = (given["task"], given["language"], given["id"], given["split"])
                rest = (given["part"], given["english"], given["decision"].lower())
                yield _Line(rows.line_num, key, *rest, given["corrected"])
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
    english = texts.get(line.part)
    if english is None:
        raise InputError(
            f"{where}: the question has no part {line.part!r}; allowed are {', '.join(texts)}"
        )
    # Spreadsheets rewrite ends of lines, and what they take for a number, a date or a formula.
    rewritten = english[:1] in "=+-@" or re.search(r"[a-z]{3}", english) is None
    if not rewritten and english.split() != line.english.split():
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


def _check_repeated(line: _Line, others: Sequence[_Line], sheet: Path) -> None:
    """Two rows about one part, as of two reviewers whose sheets were put together, must agree."""
    for other in others:
        decisions = (line.decision, line.corrected), (other.decision, other.corrected)
        if line.part == other.part and decisions[0] != decisions[1]:
            raise InputError(
                f"{sheet}, line {line.number}: part {line.part} of question {line.key[2]!r} stands "
                f"in line {other.number}, too, with another decision; leave one of the two"
            )


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
    letters = [part for part in due if len(part) == 1]
    _check_options(each, {letter: texts[letter] for letter in letters}, lines[0], sheet)
    edited = any(line.decision == "edit" for line in decisions.values())
    return replace(
        each,
        state="edited" if edited else "accepted",
        faults=(),
        stem=texts["question"],
        choices=tuple(texts[letter] for letter in letters),
        context=texts.get("context", ""),
    )


def _check_options(each: Translation, options: Mapping[str, str], line: _Line, sheet: Path) -> None:
    """Two options that read the same make a question that no model can be asked."""
    english = dict(zip(options, each.source_choices, strict=True))
    for one, other in combinations(options, 2):
        if options[one].split() == options[other].split() and english[one] != english[other]:
            raise InputError(
                f"{sheet}, line {line.number}: options {one} and {other} of question "
                f"{each.question_id!r} would both be {options[one]!r:.60}; edit one of them, or "
                "reject the question"
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
