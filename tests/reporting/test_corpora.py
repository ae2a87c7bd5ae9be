from __future__ import annotations

import pytest

from biomistral.records import TaskOverlap
from biomistral.reporting.corpora import corpora_section, language_chart
from biomistral.reporting.results import index_results
from biomistral.reporting.run_tables import Artefact

LINES = [
    TaskOverlap("heart", "en", 40, 13, 2, 1, ("q1", "q2")),
    TaskOverlap("heart", "ar", 20, 7, 1, 1, ("q1",)),
    TaskOverlap("other", "en", 5, 5, 0, 0, ()),
]


@pytest.fixture
def results(scores, tasks):
    return index_results(scores, tasks, [])


def _corpus(name: str, **tokens: int) -> Artefact:
    return Artefact("corpus", name, {"counts": {"tokens_by_language": tokens}}, 1)


def test_questions_in_a_corpus_are_counted_by_task_and_on_demand_by_language(results) -> None:
    section = corpora_section([], {"pmc": LINES}, results)
    [table], [folded] = section.tables, section.folded
    assert [(row.label, *(cell.text for cell in row.cells)) for row in table.rows] == [
        ("Heart", "2 languages", "60", "20", "3", "2"),
        ("other", "English", "5", "5", "0", "0"),
    ]
    assert [row.cells[0].text for row in folded.rows] == ["English", "Arabic", "English"]
    assert corpora_section([], {"pmc": LINES[:1]}, results).folded == []


def test_languages_are_drawn_in_the_order_of_the_benchmark_with_a_bar_a_corpus() -> None:
    chart = language_chart([_corpus("a", ar=5, en=1000), _corpus("b", fr=7, xx=1), _corpus("c")])
    assert chart is not None
    [axes] = chart.figure.axes
    assert [t.get_text() for t in axes.get_yticklabels()] == ["English", "French", "Arabic", "xx"]
    assert "a: English 1,000, Arabic 5; b: French 7, xx 1" in chart.text
    assert len(axes.containers) == 2  # nothing is known of c


def test_one_language_is_not_drawn() -> None:
    assert language_chart([_corpus("a", en=5), _corpus("b", en=6)]) is None
    assert language_chart([]) is None
