from __future__ import annotations

from biomistral.reporting.document import Material, compose
from biomistral.reporting.results import index_results


def test_sections_with_nothing_in_them_are_left_out(make_score, tasks) -> None:  # type: ignore[no-untyped-def]
    scores = [make_score("m", task, 0.5) for task in ("anatomy", "heart", "average")]
    document = compose("T", Material(index_results(scores, tasks[:2], [])))
    assert [s.id for s in document.sections] == ["accuracy", "tasks", "benchmark"]


def test_a_run_without_any_score_is_still_a_report() -> None:
    document = compose("T", Material(index_results([], [], [])))
    assert document.findings == ("Nothing was measured.",)
    assert document.sections == []


def test_other_groups_and_languages_get_their_sections(scores, tasks) -> None:  # type: ignore[no-untyped-def]
    document = compose("T", Material(index_results(scores, tasks, [])))
    ids = [s.id for s in document.sections]
    assert ids == ["accuracy", "tasks", "groups", "languages", "calibration", "benchmark"]
    assert document.facts["models"] == "2"
    assert document.facts["languages"] == "2"


def test_no_two_tables_share_an_id(scores, tasks) -> None:  # type: ignore[no-untyped-def]
    document = compose("T", Material(index_results(scores, tasks, [])))
    ids = [table.id for table in document.tables]
    assert len(ids) == len(set(ids))
