"""The published file formats, and ours: bytes in, questions out.

One function per format. Outer blanks of stems and choices are cut, nothing else is changed. A
record that cannot be read is an error that names file and record: a benchmark with questions
missing is another benchmark. Records are left out only where a format says so, and then they are
counted by reason. Knows nothing about folders, tasks or how many questions are used.
"""

from __future__ import annotations

import ast
import csv
import io
import re
from collections.abc import Callable, Iterable
from typing import Any

from biomistral.benchmark import hub_formats, release, truthfulqa
from biomistral.benchmark.parsing import (
    JsonObject,
    Loaded,
    Place,
    Spot,
    decoded,
    index_of_letter,
    json_by_key,
    json_lines,
    json_list,
    key_of,
    question_of,
    text_of,
    texts_by_letter,
    texts_of,
)
from biomistral.benchmark.rows import csv_rows, parquet_rows
from biomistral.benchmark.tasks import Format
from biomistral.errors import InputError, did_you_mean
from biomistral.records import LETTERS, Question

_JSONL_KEYS = ("id", "stem", "question", "choices", "gold", "answer", "context")


def load(file_format: Format, data: bytes, place: Place) -> Loaded:
    """Read one file of a given format.

    A record that is there twice, word for word, is taken once. Raises ``InputError`` if the file
    holds no question, or two different ones with one id.
    """
    loaded = LOADERS[file_format](data, place)
    by_id: dict[str, Question] = {}
    for question in loaded.questions:
        if by_id.setdefault(question.id, question) != question:
            raise InputError(
                f"{place.file}: two different questions have the id {question.id!r}; "
                "an id must be unique in its file"
            )
    if repeated := len(loaded.questions) - len(by_id):
        loaded.left_out["repeated"] += repeated
    loaded.questions = list(by_id.values())
    # The training file of BioInstructQA is one for all tasks, and not all have training questions.
    if not loaded.questions and (file_format != "bioinstructqa" or place.split == "test"):
        raise InputError(f"{place.file}: holds no question that can be asked")
    return loaded


def load_mmlu(text: str, place: Place) -> Loaded:
    """Read MMLU: CSV without a header: stem, four choices, letter. Ids are record numbers from 1."""
    loaded = Loaded()
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for number, row in enumerate(reader, start=1):
            spot = Spot(place, number)
            if len(row) != 6:
                raise spot.wrong(
                    f"has {len(row)} columns; 6 are due: question, A, B, C, D, letter (no header)"
                )
            stem, *choices, letter = row
            gold = index_of_letter(letter, len(choices), spot)
            loaded.questions.append(question_of(spot, str(number), stem, choices, gold))
    except csv.Error as error:
        where = f"{place.file}, line {reader.line_num}"
        raise InputError(f"{where}: is no valid CSV ({error})") from None
    return loaded


def load_medqa(text: str, place: Place) -> Loaded:
    """Read MedQA: JSON lines; options by letter, ``answer_idx``. Ids are line numbers from 1."""
    loaded = Loaded()
    for spot, record in json_lines(text, place):
        options = texts_by_letter(record.get("options"), "options", LETTERS, spot)
        gold = index_of_letter(text_of(record, "answer_idx", spot), len(options), spot)
        stem = text_of(record, "question", spot)
        loaded.questions.append(question_of(spot, str(spot.number), stem, options, gold))
    return loaded


def load_medmcqa(text: str, place: Place) -> Loaded:
    """Read MedMCQA: JSON lines; ``opa`` to ``opd``, and ``cop`` counted from 1."""
    loaded = Loaded()
    for spot, record in json_lines(text, place):
        choices = [text_of(record, key, spot) for key in ("opa", "opb", "opc", "opd")]
        cop = record.get("cop")
        if isinstance(cop, bool) or not isinstance(cop, int) or not 1 <= cop <= len(choices):
            raise spot.wrong(
                f"cop is {cop!r}; allowed are 1 to 4 (the published test file holds no answers)"
            )
        question_id, stem = text_of(record, "id", spot), text_of(record, "question", spot)
        loaded.questions.append(question_of(spot, question_id, stem, choices, cop - 1))
    return loaded


def load_pubmedqa(text: str, place: Place) -> Loaded:
    """Read PubMedQA: one JSON object by PubMed id; the abstract without its conclusion is context.

    ``CONTEXTS`` is a list of passages, or such a list printed into a text, as some copies have it;
    one blank joins them. The choices are yes, no, maybe, in this order.
    """
    choices = ("yes", "no", "maybe")
    loaded = Loaded()
    for spot, pubmed_id, record in json_by_key(text, place):
        decision = record.get("final_decision")
        if decision not in choices:
            raise spot.wrong(f"final_decision is {decision!r}; allowed are {', '.join(choices)}")
        context = " ".join(_passages(record.get("CONTEXTS"), spot))
        stem, gold = text_of(record, "QUESTION", spot), choices.index(decision)
        loaded.questions.append(question_of(spot, pubmed_id, stem, choices, gold, context))
    return loaded


def load_frenchmedmcqa(text: str, place: Place) -> Loaded:
    """Read FrenchMedMCQA: JSON list; answers by letter. Those with several right ones are left out."""
    loaded = Loaded()
    for spot, record in json_list(text, place):
        correct = texts_of(record.get("correct_answers"), "correct_answers", spot)
        if len(correct) > 1:
            loaded.left_out["several right answers"] += 1
            continue
        answers = texts_by_letter(record.get("answers"), "answers", LETTERS.lower(), spot)
        gold = index_of_letter("".join(correct).upper(), len(answers), spot)
        question_id, stem = text_of(record, "id", spot), text_of(record, "question", spot)
        loaded.questions.append(question_of(spot, question_id, stem, answers, gold))
    return loaded


def load_xmedbench(text: str, place: Place) -> Loaded:
    """Read XMedBench: JSON list; lines ``(A) ...`` as options. Ids are record numbers from 1."""
    loaded = Loaded()
    for spot, record in json_list(text, place):
        options = text_of(record, "options", spot)
        before, *parts = re.split(r"(?:^|\n)\(([A-J])\) ", options)
        letters, choices = "".join(parts[0::2]), parts[1::2]
        if before.strip() or not LETTERS.startswith(letters):
            raise spot.wrong(f"options are {options!r:.80}; lines (A) ..., (B) ... are due")
        answer = text_of(record, "answer", spot).removeprefix("(").removesuffix(")")
        gold = index_of_letter(answer, len(choices), spot)
        stem = text_of(record, "question", spot)
        loaded.questions.append(question_of(spot, str(spot.number), stem, choices, gold))
    return loaded


def load_jsonl(text: str, place: Place) -> Loaded:
    """Read our own format: JSON lines with id, stem, choices, gold, and context where there is one.

    ``question`` may stand for ``stem``, and ``answer`` (a letter) for ``gold`` (an index from 0).
    """
    return _own(json_lines(text, place))


def load_own_csv(data: bytes, place: Place) -> Loaded:
    """Read our own columns from CSV with a header; choices in columns A, B, C, ... (empty: none)."""
    return _own((spot, _with_choices(_numbered(record))) for spot, record in csv_rows(data, place))


def load_own_parquet(data: bytes, place: Place) -> Loaded:
    """Read our own columns from Parquet; ``choices`` is a list, or they are in columns A, B, ..."""
    return _own((spot, _with_choices(record)) for spot, record in parquet_rows(data, place))


def _own(records: Iterable[tuple[Spot, JsonObject]]) -> Loaded:
    loaded = Loaded()
    for spot, record in records:
        _refuse_unknown_keys(record, spot)
        stem = text_of(record, key_of(record, ("stem", "question"), spot), spot)
        choices = texts_of(record.get("choices"), "choices", spot)
        if key_of(record, ("gold", "answer"), spot) == "answer":
            gold = index_of_letter(text_of(record, "answer", spot), len(choices), spot)
        else:
            gold = record["gold"]
            if isinstance(gold, bool) or not isinstance(gold, int):
                raise spot.wrong(f"gold is {gold!r}; an index from 0 is due (or answer: a letter)")
        context = text_of(record, "context", spot) if "context" in record else ""
        question_id = text_of(record, "id", spot)
        loaded.questions.append(question_of(spot, question_id, stem, choices, gold, context))
    return loaded


def _numbered(record: JsonObject) -> JsonObject:
    """Read the index of a CSV file, where everything is text; leave it if it is no number."""
    gold = record.get("gold")
    return {**record, "gold": int(gold)} if isinstance(gold, str) and gold.isdecimal() else record


def _with_choices(record: JsonObject) -> JsonObject:
    """Gather the choices of columns A, B, C, ... into a list, without the empty ones at the end."""
    letters = [letter for letter in LETTERS if letter in record]
    if "choices" in record or not letters:
        return record
    choices = [record[letter] for letter in letters]
    while choices and choices[-1] in ("", None):
        choices.pop()
    others = {key: value for key, value in record.items() if key not in letters}
    return {**others, "choices": choices}


def _of_text(loader: Callable[[str, Place], Loaded]) -> Callable[[bytes, Place], Loaded]:
    return lambda data, place: loader(decoded(data, place), place)


LOADERS: dict[Format, Callable[[bytes, Place], Loaded]] = {
    "mmlu": _of_text(load_mmlu),
    "medqa": _of_text(load_medqa),
    "medmcqa": _of_text(load_medmcqa),
    "pubmedqa": _of_text(load_pubmedqa),
    "frenchmedmcqa": _of_text(load_frenchmedmcqa),
    "xmedbench": _of_text(load_xmedbench),
    "jsonl": _of_text(load_jsonl),
    "csv": load_own_csv,
    "parquet": load_own_parquet,
    "truthfulqa": truthfulqa.load_csv,
    "truthfulqa_hub": truthfulqa.load_hub,
    "bioinstructqa": _of_text(release.load),
    "mmlu_hub": hub_formats.load_mmlu,
    "medmcqa_hub": hub_formats.load_medmcqa,
    "pubmedqa_hub": hub_formats.load_pubmedqa,
    "openlifescience": hub_formats.load_openlifescience,
}


def _passages(value: Any, spot: Spot) -> list[str]:
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise spot.wrong(f"CONTEXTS is {value!r:.80}; a list of texts is due") from None
    return texts_of(value, "CONTEXTS", spot)


def _refuse_unknown_keys(record: JsonObject, spot: Spot) -> None:
    for key in record:
        if key not in _JSONL_KEYS:
            raise spot.wrong(
                f"unknown key {key!r}; allowed are {', '.join(_JSONL_KEYS)}"
                f"{did_you_mean(key, _JSONL_KEYS)}"
            )
