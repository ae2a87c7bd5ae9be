from __future__ import annotations

from biomistral.records import ReliabilityBin, Task
from biomistral.reporting.document import Material, compose
from biomistral.reporting.results import index_results


def test_sections_with_nothing_in_them_are_left_out(make_score, tasks) -> None:
    scores = [make_score("m", task, 0.5) for task in ("anatomy", "heart", "average")]
    document = compose("T", Material(index_results(scores, tasks[:2], [])))
    assert [s.id for s in document.sections] == ["accuracy", "tasks", "benchmark"]


def test_a_run_without_any_score_is_still_a_report() -> None:
    document = compose("T", Material(index_results([], [], [])))
    assert document.findings == ("Nothing was measured.",)
    assert document.sections == []


def test_other_groups_and_languages_get_their_sections(scores, tasks) -> None:
    document = compose("T", Material(index_results(scores, tasks, [])))
    ids = [s.id for s in document.sections]
    assert ids == ["accuracy", "tasks", "groups", "languages", "calibration", "benchmark"]
    assert document.facts["models"] == "2"
    assert document.facts["languages"] == "2"


def test_no_two_tables_share_an_id(scores, tasks) -> None:
    document = compose("T", Material(index_results(scores, tasks, [])))
    ids = [table.id for table in document.tables]
    assert len(ids) == len(set(ids))


def test_every_scoring_has_its_own_charts_that_say_so(make_score, tasks) -> None:
    scores = [
        make_score("m", task, 0.5, scoring=scoring)
        for task in ("anatomy", "heart", "average")
        for scoring in ("letter", "cloze")
    ]
    bins = [
        ReliabilityBin("m", "average", "medical", "en", scoring, 0.5, 1.0, 9, 0.7, 0.4)
        for scoring in ("letter", "cloze")
    ]
    document = compose("T", Material(index_results(scores, tasks[:2], []), bins))
    charts = [chart for section in document.sections for chart in section.charts]
    assert len({chart.id for chart in charts}) == len(charts) == 8
    for scoring in ("letter", "cloze"):
        assert sum(f"English, {scoring} scoring, 3-shot" in c.caption for c in charts) == 4


def test_truthfulness_has_a_section_of_its_own(make_score, tasks) -> None:
    truthful = Task("truthfulqa", "TruthfulQA", "truthfulness", "invented", "MIT")
    asked = {"group": "truthfulness", "shots": 0}
    scores = [
        make_score("base", "heart", 0.5),
        *(make_score("base", task, 0.25, **asked) for task in ("truthfulqa", "average")),
    ]
    results = index_results(scores, [*tasks, truthful], ["base"])
    sections = {each.id: each for each in compose("run", Material(results=results)).sections}
    (table,) = sections["truthfulness"].tables
    assert table.id == "accuracy-truthfulness-en-letter-0shot"
    assert table.rows[0].cells[0].text == "25.0"
    assert not any("truthfulness" in each.id for each in sections["groups"].folded)
