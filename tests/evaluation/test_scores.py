from __future__ import annotations

import dataclasses

import pytest

from biomistral.artifacts import content_digest, read_manifest
from biomistral.errors import InputError
from biomistral.evaluation import score
from biomistral.evaluation.scores import calibration_file
from biomistral.models import calibrations
from biomistral.models.calibrations import SavedFit
from biomistral.records import (
    Comparison,
    CoveragePoint,
    Prediction,
    ReliabilityBin,
    Score,
    read_records,
    write_records,
)


@pytest.fixture
def both(random_predictions, write_predictions):
    """Folders of the predictions of two models on the same questions."""
    return {
        "one": write_predictions("one", random_predictions(1)),
        "two": write_predictions("two", random_predictions(2)),
    }


def test_scores_and_bars_are_written(both, random_predictions, write_questions, tmp_path):
    out = score(both, write_questions(random_predictions()), tmp_path / "scores")
    rows = list(read_records(out / "scores.parquet", Score))
    assert list(dict.fromkeys(row.model for row in rows)) == [
        "one",
        "two",
        "random choice",
        "majority choice",
    ]
    accuracy = next(row for row in rows if row.metric == "accuracy" and row.task == "plants")
    mine = [p for p in random_predictions(1) if p.task == "plants"]
    right = [p.logprobs.index(max(p.logprobs)) == p.gold for p in mine]
    assert accuracy.value == pytest.approx(sum(right) / len(right))
    bars = list(read_records(out / "reliability.parquet", ReliabilityBin))
    assert sum(b.num_answers for b in bars if b.model == "two" and b.task == "rivers") == 2 * 25
    assert read_manifest(out)["counts"]["answers"] == 2 * 2 * (40 + 25)


def test_the_same_files_give_the_same_bytes(both, random_predictions, write_questions, tmp_path):
    questions = write_questions(random_predictions())
    first = score(both, questions, tmp_path / "first")
    second = score(both, questions, tmp_path / "second")
    assert content_digest(first) == content_digest(second)
    assert content_digest(score(both, questions, tmp_path / "third", seed=7)) != content_digest(
        first
    )


def test_nothing_to_score_is_said(tmp_path):
    with pytest.raises(InputError, match="no predictions to score"):
        score({}, tmp_path, tmp_path / "scores")


def test_models_that_answered_other_questions_are_refused(
    both, random_predictions, write_predictions, write_questions, tmp_path
):
    fewer = write_predictions("fewer", [p for p in random_predictions() if p.task == "plants"])
    with pytest.raises(InputError, match=r"'fewer' lacks question 'rivers-0' and all others"):
        score({**both, "fewer": fewer}, write_questions(random_predictions()), tmp_path / "scores")


def test_a_question_that_is_not_asked_is_named(both, random_predictions, write_questions, tmp_path):
    questions = write_questions([p for p in random_predictions() if p.question_id != "plants-3"])
    with pytest.raises(InputError, match=r"has no test question 'plants-3' of plants \(en\)"):
        score(both, questions, tmp_path / "scores")


def test_an_unknown_task_is_named(both, random_predictions, write_questions, tmp_path):
    questions = write_questions([p for p in random_predictions() if p.task == "plants"])
    with pytest.raises(InputError, match=r"tasks.parquet: has no task 'rivers'"):
        score(both, questions, tmp_path / "scores")


def test_questions_that_changed_since_are_refused(
    both, random_predictions, write_questions, tmp_path
):
    changed = [
        dataclasses.replace(p, gold=1 - p.gold) if p.question_id == "plants-0" else p
        for p in random_predictions()
    ]
    with pytest.raises(InputError, match=r"'plants-0' of plants.*2 choices and the right index"):
        score(both, write_questions(changed), tmp_path / "scores")
    assert not (tmp_path / "scores").exists()


def test_calibration_coverage_and_comparisons_are_kept(
    both, random_predictions, write_questions, tmp_path
):
    named = {"one": both["one"], "odd / name": both["two"]}
    out = score(named, write_questions(random_predictions()), tmp_path / "scores")
    model, [saved] = calibrations.read(calibration_file(out, "odd / name"))
    assert model == "odd / name"
    assert saved.num_answers == 2 * (40 + 25)
    rows = list(read_records(out / "comparisons.parquet", Comparison))
    assert {(row.first, row.second) for row in rows} == {("one", "odd / name")}
    points = list(read_records(out / "coverage.parquet", CoveragePoint))
    assert len(points) == 2 * 20


def test_validation_predictions_calibrate(
    both, random_predictions, write_predictions, write_questions, tmp_path
):
    questions = write_questions(random_predictions())
    more = [dataclasses.replace(p, question_id=f"v{p.question_id}") for p in random_predictions(5)]
    validation = [*random_predictions(6), *more]  # ids of another split may be the same
    write_records(both["one"] / "validation.parquet", validation, Prediction)
    out = score(both, questions, tmp_path / "scores")
    fitted = {
        model: calibrations.read(calibration_file(out, model))[1][0].fitted_on for model in both
    }
    assert fitted == {"one": "validation", "two": "test"}


def _saved(path, fitted_on):
    fit = SavedFit(
        "medical", ("plants",), "en", "letter", 3, 4.0, 0.5, 0.1, 900, fitted_on=fitted_on
    )
    calibrations.write(path, "one", [fit])
    return fit


def test_what_was_saved_is_applied_as_it_is(both, random_predictions, write_questions, tmp_path):
    fit = _saved(tmp_path / "c.json", "validation")
    questions = write_questions(random_predictions())
    out = score(both, questions, tmp_path / "scores", saved={"one": tmp_path / "c.json"})
    assert calibrations.read(calibration_file(out, "one")) == ("one", [fit])
    rows = [row for row in read_records(out / "scores.parquet", Score) if row.task == "average"]
    temperature = {row.model: row.value for row in rows if row.metric == "temperature"}
    assert temperature["one"] == 4.0
    assert temperature["two"] != 4.0
    [other] = calibrations.read(calibration_file(out, "two"))[1]
    assert other.fitted_on == "test"


def test_what_was_fitted_on_test_questions_is_not_applied(
    both, random_predictions, write_questions, tmp_path
):
    _saved(tmp_path / "c.json", "test")
    with pytest.raises(InputError, match=r"was fitted on test questions .*calibration: fitted"):
        score(
            both, write_questions(random_predictions()), tmp_path / "scores",
            saved={"one": tmp_path / "c.json"},
        )  # fmt: skip
