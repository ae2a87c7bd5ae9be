from __future__ import annotations

from dataclasses import replace

import pytest

from biomistral.records import LanguageGap
from biomistral.reporting.language_tables import (
    calibration_by_language,
    calibration_by_task,
    gap_tables,
    languages_section,
)
from biomistral.reporting.results import Setting, index_results
from biomistral.reporting.run_tables import Artefact

GAP = LanguageGap(
    "base", "anatomy", "medical", "fr", "letter", 3, -0.125, -0.2, -0.05, 0.01, 135, 3
)


@pytest.fixture
def results(scores, tasks):
    return index_results(scores, tasks, ["base"])


def test_the_average_comes_first_and_sure_differences_are_starred(results) -> None:
    average = replace(
        GAP, task="average", difference=-0.02, low=-0.06, high=0.02, p_bootstrap_holm=0.4
    )
    other_protocol = replace(GAP, shots=0)
    first, second = gap_tables(results, [GAP, average, other_protocol], "letter", 3)
    assert first.id == "against-english-average-letter-3shot"
    (row,) = [row for row in second.rows if row.label == "base"]
    (cell,) = row.cells
    assert cell.text == "\N{MINUS SIGN}12.5*"
    assert cell.spread == "± 7.5"
    assert "135 questions, corrected p 0.010" in cell.hover
    (tiny, *_) = gap_tables(results, [replace(GAP, p_bootstrap_holm=1e-9)], "letter", 3)
    assert any("corrected p < 0.001" in cell.hover for row in tiny.rows for cell in row.cells)
    assert first.rows[0].cells[0].text == "\N{MINUS SIGN}2.0"


def test_without_pairs_there_is_no_table(results) -> None:
    assert gap_tables(results, [], "letter", 3) == []


def test_languages_stand_in_the_order_of_the_report(results) -> None:
    results = replace(results, settings=(*results.settings, Setting("fr", "letter", 3)))
    gaps = [replace(GAP, language=code) for code in ("xx", "fr", "ar")]
    (table,) = gap_tables(results, gaps, "letter", 3)
    assert [column.title for column in table.columns] == ["Arabic", "French", "xx"]


def test_calibration_is_shown_by_language_for_every_model_that_has_it(results) -> None:
    table = calibration_by_language(results, "medical", "letter", 3)
    assert [column.title for column in table.columns] == ["English", "Arabic"]
    found = {row.label: [cell.text for cell in row.cells] for row in table.rows}
    assert found["base"] == ["10.0", "10.0"]
    assert "random choice" not in found  # it has no calibration error; not a row of zeros


def test_calibration_is_shown_by_task_in_each_language(results) -> None:
    english, arabic = calibration_by_task(results, "medical", "letter", 3)
    assert english.title == "Calibration by task: English, letter scoring, 3-shot"
    assert [c.title for c in arabic.columns] == ["Anatomy & more", "Heart", "Average"]
    assert [cell.text for cell in arabic.rows[0].cells] == ["10.0", "–", "10.0"]


def test_the_section_draws_what_is_lost_and_says_how_questions_were_put(results) -> None:
    average = replace(GAP, task="average", language="ar")
    manifest = {"settings": {"example_language": "question", "prompt_language": "english"}}
    asked = [Artefact("predictions", name, manifest, 1) for name in ("a", "b")]
    section = languages_section(results, [GAP, average], asked)
    assert section.text == (
        "Worked examples are in the language of the question, the words around a question in English."
    )
    [chart] = section.charts
    assert "base in Arabic: -12.5 (-20.0 to -5.0)" in chart.text
    ids = [table.id for table in (*section.tables, *section.folded)]
    assert len(ids) == len(set(ids))
    other = Artefact("predictions", "c", {"settings": {"example_language": "english"}}, 1)
    assert languages_section(results, [], [*asked, other]).text == ""  # not one way for all


def test_one_language_has_no_section(make_score, tasks) -> None:
    alone = index_results([make_score("base", "heart", 0.5)], tasks, [])
    assert languages_section(alone, [GAP], []).is_empty
