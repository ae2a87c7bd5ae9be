"""Formats of data sets on the Hugging Face hub: Parquet bytes in, questions out.

They carry the same questions as the files of their makers, in other columns. Knows neither the hub
nor folders.
"""

from __future__ import annotations

from biomistral.benchmark.parsing import (
    JsonObject,
    Loaded,
    Place,
    Spot,
    as_object,
    index_of_letter,
    question_of,
    text_of,
    texts_by_letter,
    texts_of,
)
from biomistral.benchmark.rows import parquet_rows
from biomistral.records import LETTERS

_DECISIONS = ("yes", "no", "maybe")


def load_mmlu(data: bytes, place: Place) -> Loaded:
    """Read cais/mmlu: question, choices, answer (an index from 0). Ids are row numbers from 1."""
    loaded = Loaded()
    for spot, row in parquet_rows(data, place):
        choices = texts_of(row.get("choices"), "choices", spot)
        gold = _index(row, "answer", len(choices), spot)
        stem = text_of(row, "question", spot)
        loaded.questions.append(question_of(spot, str(spot.number), stem, choices, gold))
    return loaded


def load_medmcqa(data: bytes, place: Place) -> Loaded:
    """Read openlifescienceai/medmcqa: as its makers' file, but ``cop`` counts from 0 there."""
    loaded = Loaded()
    for spot, row in parquet_rows(data, place):
        choices = [text_of(row, key, spot) for key in ("opa", "opb", "opc", "opd")]
        gold = _index(row, "cop", len(choices), spot)
        stem = text_of(row, "question", spot)
        loaded.questions.append(question_of(spot, text_of(row, "id", spot), stem, choices, gold))
    return loaded


def load_pubmedqa(data: bytes, place: Place) -> Loaded:
    """Read qiaojin/PubMedQA, pqa_labeled: ``context.contexts`` joined by blanks, final_decision."""
    loaded = Loaded()
    for spot, row in parquet_rows(data, place):
        decision = row.get("final_decision")
        if decision not in _DECISIONS:
            allowed = ", ".join(_DECISIONS)
            raise spot.wrong(f"final_decision is {decision!r}; allowed are {allowed}")
        context = as_object(row.get("context"), spot)
        passage = " ".join(texts_of(context.get("contexts"), "contexts", spot))
        stem, gold = text_of(row, "question", spot), _DECISIONS.index(decision)
        question_id = str(row.get("pubid"))
        loaded.questions.append(question_of(spot, question_id, stem, _DECISIONS, gold, passage))
    return loaded


def load_openlifescience(data: bytes, place: Place) -> Loaded:
    """Read openlifescienceai/pubmedqa: ``data`` with Question, Options, Correct Option, Context."""
    loaded = Loaded()
    for spot, row in parquet_rows(data, place):
        record = as_object(row.get("data"), spot)
        options = as_object(record.get("Options"), spot)
        present = {letter: text for letter, text in options.items() if text is not None}
        choices = texts_by_letter(present, "Options", LETTERS, spot)
        gold = index_of_letter(text_of(record, "Correct Option", spot), len(choices), spot)
        passages = record.get("Context")
        context = " ".join(texts_of(passages, "Context", spot)) if passages else ""
        stem, question_id = text_of(record, "Question", spot), text_of(row, "id", spot)
        loaded.questions.append(question_of(spot, question_id, stem, choices, gold, context))
    return loaded


def _index(row: JsonObject, key: str, count: int, spot: Spot) -> int:
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < count:
        raise spot.wrong(f"{key} is {value!r}; allowed are 0 to {count - 1}")
    return value
