"""The section on translations: how many there are, and what is known of their quality.

Pure: from the numbers that ``biomistral translate quality`` writes (``totals.json``) to tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from biomistral.languages import language_of
from biomistral.reporting.model_sections import Section
from biomistral.reporting.tables import (
    Cell,
    Column,
    Row,
    Table,
    count_cell,
    number_cell,
    slug,
    text_cell,
)

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


def translations_section(
    found: Mapping[str, Mapping[str, Any]], pages: Mapping[str, str]
) -> Section:
    """Numbers of each set of translations, and its page with the worst, by name."""
    text = "What was asked in these languages was translated by machine."
    if any(row["chrf"] is not None for totals in found.values() for row in totals["rows"]):
        text += (
            " A high score of the translation back into English says that little was lost on the "
            "way there and back, not that it reads well."
        )
    return Section(
        "translations",
        "Translations",
        text,
        tables=[totals_table(totals, name) for name, totals in found.items()],
        links=pages,
        links_title="The worst side by side",
    )


def totals_table(totals: Mapping[str, Any], name: str = "") -> Table:
    """One row per task and language; ``name`` is that of the translations, where there are several."""
    rows = tuple(Row(total["task"], _cells(total)) for total in totals["rows"])
    signatures = "; ".join(totals.get("signatures", {}).values())
    note = f"sacrebleu: {signatures}." if signatures else "Nobody translated back into English."
    id_, title = "translations", "Translations by task and language"
    if name:
        id_, title = slug(id_, name), f"{title}: {name}"
    return Table(id_, title, "Task", _COLUMNS, rows, note)


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
