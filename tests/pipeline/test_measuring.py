from __future__ import annotations

from biomistral.pipeline import plan
from biomistral.recipe import parse_recipe


def _steps(small, tmp_path, *changes):
    return {step.key: step for step in plan(small(*changes), tmp_path / "run")}


def test_every_corpus_is_searched_for_questions_before_the_report(small, tmp_path):
    steps = _steps(small, tmp_path)
    for name in ("general", "articles"):
        wanted = {f"tokens/{name}", "questions/benchmark"}
        assert wanted <= set(steps[f"overlap/{name}"].needs)
        assert f"overlap/{name}" in steps["report/report"].needs
    without = _steps(small, tmp_path, "evaluate.find_overlap=false")
    assert not [key for key in without if key.startswith("overlap/")]
    changed = {key for key in without if without[key].origin != steps[key].origin}
    assert changed == {"report/report"}


def test_questions_are_looked_for_in_the_rows_that_a_model_is_trained_on(small, tmp_path):
    before = _steps(small, tmp_path)["overlap/articles"].origin.fingerprint
    longer = _steps(small, tmp_path, "corpus.articles.sequence_length=128")
    assert longer["overlap/articles"].origin.fingerprint != before
    more_workers = _steps(small, tmp_path, "corpus.articles.workers=3")
    assert more_workers["overlap/articles"].origin.fingerprint == before
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


def test_saved_calibration_of_given_models_is_an_input_if_it_is_to_be_applied(tmp_path):
    text = (
        f"name: x\nmodels: {{a: {{path: {tmp_path / 'a'}}}, b: {{path: {tmp_path / 'b'}}}}}\n"
        "evaluate: {models: [a, b], calibration: HOW}\n"
    )
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")

    def inputs(how):
        steps = plan(parse_recipe(text.replace("HOW", how)), tmp_path / "run")
        by_key = {step.key: step for step in steps}
        return by_key["scores/scores"].origin, by_key["predictions/a"].origin.fingerprint

    before, predicted = inputs("saved")
    (tmp_path / "a/calibration.json").write_text("{}")
    after, predicted_after = inputs("saved")
    assert after.inputs.keys() - before.inputs.keys() == {"calibration/a"}
    assert inputs("fitted")[0].fingerprint == before.fingerprint
    assert predicted == predicted_after
