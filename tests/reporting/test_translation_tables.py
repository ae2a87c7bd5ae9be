from __future__ import annotations

from biomistral.reporting.translation_tables import totals_table, translations_section

ROW = {
    "task": "valley",
    "language": "ar",
    "questions": 40,
    "translated": 38,
    "failed": 2,
    "reviewed": 3,
    "collisions": 1,
    "tried_again": 5,
    "length_ratio": 0.8,
    "terms": 10,
    "terms_kept": 0.95,
    "chrf": None,
    "bleu": None,
}
PLAIN = {"signatures": {}, "rows": [ROW]}
SCORED = {
    "signatures": {"chrf": "chrF2|version:2"},
    "rows": [{**ROW, "chrf": 61.25, "bleu": 40.0, "terms_kept": None}],
}


def test_what_was_not_measured_is_a_dash_and_said() -> None:
    table = totals_table(PLAIN)
    (row,) = table.rows
    shown = ["Arabic", "40", "38", "2", "1", "5", "3", "0.80", "95.0", "–", "–"]
    assert [cell.text for cell in row.cells] == shown
    assert table.note == "Nobody translated back into English."


def test_scores_stand_with_the_signature_of_sacrebleu() -> None:
    table = totals_table(SCORED)
    assert [cell.text for cell in table.rows[0].cells[-3:]] == ["–", "61.2", "40.0"]
    assert table.note == "sacrebleu: chrF2|version:2."


def test_each_set_of_translations_has_a_table_and_a_page() -> None:
    pages = {"tr": "translations/tr.html", "re viewed": "translations/re_viewed.html"}
    section = translations_section({"tr": PLAIN, "re viewed": SCORED}, pages)
    assert [table.id for table in section.tables] == ["translations-tr", "translations-re-viewed"]
    assert section.links == pages
    assert section.links_title == "The worst side by side"
    assert "translation back into English" in section.text
    assert "translation back" not in translations_section({"tr": PLAIN}, {}).text


def test_a_run_without_translations_has_no_section() -> None:
    assert translations_section({}, {}).is_empty
