"""The page on translations: what was translated, how much is kept, and the worst side by side.

Reads the artefacts of translation and writes one page; knows nothing about how they were made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from biomistral.disk import plain_os_errors
from biomistral.languages import language_of
from biomistral.records import Translation, TranslationQuality, read_records
from biomistral.reporting.document import Document
from biomistral.reporting.model_sections import Pair, Section, Version
from biomistral.reporting.render import render_html
from biomistral.reporting.tables import (
    Cell,
    Column,
    Row,
    Table,
    count_cell,
    number_cell,
    text_cell,
)

NUM_WORST = 100
_NUM_FAILED = 200  # on the page; all are in the files

_COLUMNS = (
    Column("Language", is_text=True),
    Column("Questions"),
    Column("Translated"),
    Column("Failed"),
    Column("Collisions", note="questions with options that read the same and differ in English"),
    Column("Again", note="questions that took more than one attempt"),
    Column("Reviewed", note="accepted, edited or rejected by people"),
    Column("Length", note="median of characters over those of the English"),
    Column("Terms kept, %", note="numbers, units, genes and drugs of the English that are kept"),
    Column("chrF", note="of the translation back into English, 0 to 100"),
    Column("BLEU", note="of the translation back into English, 0 to 100"),
)


def write_page(translations: Path, quality: Path, page: Path) -> None:
    """Write the page of one set of translations and what was measured of it."""
    every = list(read_records(translations / "translations.parquet", Translation))
    rows = list(read_records(quality / "quality.parquet", TranslationQuality))
    totals = json.loads((quality / "totals.json").read_text(encoding="utf-8"))
    with plain_os_errors(page):
        page.write_text(render_html(document_of(every, rows, totals)), encoding="utf-8")


def document_of(
    every: Sequence[Translation], rows: Sequence[TranslationQuality], totals: Mapping[str, Any]
) -> Document:
    """Say what there is to say of translations."""
    num_failed = sum(each.state == "failed" for each in every)
    num_good = len(rows)
    languages = list(dict.fromkeys(each.language for each in every))
    facts = {
        "questions and languages": f"{len(every):,}",
        "languages": f"{len(languages)}",
        "translated": f"{num_good:,}",
        "failed": f"{num_failed:,}",
    }
    finding = (
        f"{num_failed:,} of {len(every):,} translations had a fault after the last attempt; they are "
        "left out of the benchmark and listed below."
    )
    sections = [
        Section("totals", "Tasks and languages", tables=[_totals_table(totals)]),
        Section("worst", "The worst", _worst_text(rows), pairs=_worst_pairs(every, rows)),
        Section("failed", "Failed", _failed_text(num_failed), pairs=_failed_pairs(every)),
    ]
    shown = [section for section in sections if not section.is_empty]
    return Document("Translations", facts, [finding], shown)


def _totals_table(totals: Mapping[str, Any]) -> Table:
    rows = tuple(Row(total["task"], _cells(total)) for total in totals["rows"])
    signatures = "; ".join(totals.get("signatures", {}).values())
    note = f"sacrebleu: {signatures}." if signatures else "Nobody translated back into English."
    return Table("translations", "Translations by task and language", "Task", _COLUMNS, rows, note)


def _cells(total: Mapping[str, Any]) -> tuple[Cell, ...]:
    kept = total["terms_kept"]
    return (
        text_cell(language_of(total["language"]).name),
        *(count_cell(total[key]) for key in ("questions", "translated", "failed")),
        *(count_cell(total[key]) for key in ("collisions", "tried_again", "reviewed")),
        number_cell(total["length_ratio"], 2),
        number_cell(None if kept is None else 100 * kept),
        number_cell(total["chrf"]),
        number_cell(total["bleu"]),
    )


def _worst_text(rows: Sequence[TranslationQuality]) -> str:
    by = (
        "the chrF of their translation back"
        if any(row.back for row in rows)
        else "terms and length"
    )
    return f"The {min(NUM_WORST, len(rows))} to look at first, by {by}."


def _failed_text(num_failed: int) -> str:
    shown = min(num_failed, _NUM_FAILED)
    return f"{shown} of {num_failed}, with the faults of the last attempt." if num_failed else ""


def _worst_pairs(every: Sequence[Translation], rows: Sequence[TranslationQuality]) -> list[Pair]:
    by_key = {(e.task, e.language, e.split, e.question_id): e for e in every}
    pairs = []
    for row in sorted(rows, key=_goodness)[:NUM_WORST]:
        each = by_key[row.task, row.language, row.split, row.question_id]
        parts = [f"{row.num_kept} of {row.num_terms} terms kept", f"length {row.length_ratio:.2f}"]
        if row.chrf is not None:
            parts.insert(0, f"chrF {row.chrf:.0f}")
        versions = _versions(each)
        if row.back:
            versions.append(Version("Back in English", row.back, "en", "ltr"))
        pairs.append(Pair(_title(each), "; ".join(parts), versions))
    return pairs


def _goodness(row: TranslationQuality) -> tuple[float, float, float]:
    kept = row.num_kept / row.num_terms if row.num_terms else 1.0
    length = min(row.length_ratio, 1 / row.length_ratio) if row.length_ratio > 0 else 0.0
    return (row.chrf if row.chrf is not None else 100.0, kept, length)


def _failed_pairs(every: Sequence[Translation]) -> list[Pair]:
    failed = [each for each in every if each.state == "failed"][:_NUM_FAILED]
    return [Pair(_title(each), "; ".join(each.faults), _versions(each)) for each in failed]


def _versions(each: Translation) -> list[Version]:
    language = language_of(each.language)
    source = _lines(each.source_stem, each.source_choices, each.source_context)
    versions = [Version("English", source, "en", "ltr")]
    if each.stem:
        text = _lines(each.stem, each.choices, each.context)
        versions.append(Version(language.name, text, language.code, language.direction))
    return versions


def _lines(stem: str, choices: Sequence[str], context: str) -> str:
    return "\n".join([*([context] if context else []), stem, *(f"– {text}" for text in choices)])


def _title(each: Translation) -> str:
    return f"{each.task}, {each.question_id}, {language_of(each.language).name}"
