"""The page on translations: what was translated, how much is kept, and the worst side by side.

Reads the artefacts of translation and writes one page; knows nothing about how they were made.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from biomistral.disk import plain_os_errors
from biomistral.errors import InputError
from biomistral.languages import language_of
from biomistral.records import Translation, TranslationQuality, read_records
from biomistral.reporting.document import Document
from biomistral.reporting.model_sections import Pair, Section, Version
from biomistral.reporting.render import render_html
from biomistral.reporting.translation_tables import totals_table

NUM_WORST = 100
_NUM_FAILED = 200  # on the page; all are in the files


def write_page(
    translations: Path,
    quality: Path,
    page: Path,
    may_show: Callable[[str], bool] = lambda _: True,
) -> None:
    """Write the page of one set of translations and what was measured of it.

    ``may_show`` says of a task whether its texts may stand on the page.
    """
    every = list(read_records(translations / "translations.parquet", Translation))
    rows = list(read_records(quality / "quality.parquet", TranslationQuality))
    document = document_of(every, rows, read_totals(quality), may_show)
    with plain_os_errors(page):
        page.write_text(render_html(document), encoding="utf-8")


def read_totals(quality: Path) -> dict[str, Any]:
    """Return the numbers per task and language of a folder of measured quality.

    Raises ``InputError`` if they cannot be read.
    """
    path = quality / "totals.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); make the folder with biomistral translate quality"
        ) from None
    return found


def document_of(
    every: Sequence[Translation],
    rows: Sequence[TranslationQuality],
    totals: Mapping[str, Any],
    may_show: Callable[[str], bool] = lambda _: True,
) -> Document:
    """Say what there is to say of translations; with texts of those tasks that ``may_show`` allows."""
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
    hidden = [t for t in dict.fromkeys(e.task for e in every) if not may_show(t)]
    every = [each for each in every if each.task not in hidden]
    rows = [row for row in rows if row.task not in hidden]
    findings = [finding]
    if hidden:
        findings.append(f"Texts of {', '.join(hidden)} are not shown: their licence may forbid it.")
    sections = [
        Section("totals", "Tasks and languages", tables=[totals_table(totals)]),
        Section("worst", "The worst", _worst_text(rows), pairs=_worst_pairs(every, rows)),
        Section(
            "failed",
            "Failed",
            _failed_text(sum(e.state == "failed" for e in every)),
            pairs=_failed_pairs(every),
        ),
    ]
    shown = [section for section in sections if not section.is_empty]
    return Document("Translations", facts, findings, shown)


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
        kept = f"{row.num_kept} of {row.num_terms} terms kept" if row.num_terms else "no terms"
        parts = [kept, f"length {row.length_ratio:.2f}"]
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
