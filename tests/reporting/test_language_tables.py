from __future__ import annotations

from dataclasses import replace

import pytest

from biomistral.records import LanguageGap
from biomistral.reporting.language_tables import gap_tables
from biomistral.reporting.results import index_results

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
    assert "135 questions" in cell.hover
    assert first.rows[0].cells[0].text == "\N{MINUS SIGN}2.0"


def test_without_pairs_there_is_no_table(results) -> None:
    assert gap_tables(results, [], "letter", 3) == []
