from __future__ import annotations

from biomistral.pipeline import plan


def _steps(small, tmp_path, *changes):
    return {step.key: step for step in plan(small(*changes), tmp_path / "run")}


def test_every_corpus_is_searched_for_questions_before_the_report(small, tmp_path):
    steps = _steps(small, tmp_path)
    for name in ("general", "articles"):
        assert steps[f"overlap/{name}"].needs == ("questions/benchmark",)
        assert f"overlap/{name}" in steps["report/report"].needs
    without = _steps(small, tmp_path, "evaluate.find_overlap=false")
    assert not [key for key in without if key.startswith("overlap/")]
    changed = {key for key in without if without[key].origin != steps[key].origin}
    assert changed == {"report/report"}


def test_rows_and_tokenizers_do_not_matter_to_what_is_found(small, tmp_path):
    before = _steps(small, tmp_path)["overlap/articles"].origin.fingerprint
    longer = _steps(small, tmp_path, "corpus.articles.sequence_length=128")
    assert longer["overlap/articles"].origin.fingerprint == before
    shorter = _steps(small, tmp_path, "corpus.articles.minimum_words=6")
    assert shorter["overlap/articles"].origin.fingerprint != before


def test_costs_are_measured_when_asked_for_and_shown_in_the_report(small, tmp_path):
    plain = _steps(small, tmp_path)
    assert "scores/cost" not in plain
    steps = _steps(small, tmp_path, "evaluate.cost=true")
    assert steps["scores/cost"].needs == tuple(
        step.key
        for step in steps.values()
        if step.kind == "model" and step.key in _evaluated(steps)
    )
    assert "scores/cost" in steps["report/report"].needs
    same = [key for key in plain if key != "report/report"]
    assert all(plain[key].origin == steps[key].origin for key in same)


def _evaluated(steps):
    return [f"model/{step.name}" for step in steps.values() if step.kind == "predictions"]
