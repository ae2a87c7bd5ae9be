from __future__ import annotations

from biomistral.reporting.results import index_results
from biomistral.reporting.summary import findings


def found(make_score, tasks, values, trained=(), parents=None, **changes):
    scores = [
        make_score(model, task, value, **({} if model == "random choice" else changes))
        for model, value in values.items()
        for task in ("anatomy", "heart", "average")
    ]
    return " ".join(findings(index_results(scores, tasks, []), parents or {}, list(trained)))


def test_overlapping_intervals_are_said_to_overlap(make_score, tasks) -> None:
    text = found(make_score, tasks, {"a": 0.50, "b": 0.55, "c": 0.80})
    assert "c has the highest medical average, 80.0 % (95 % interval 75.0 to 85.0)" in text
    assert "overlaps with that of no other model" in text
    text = found(make_score, tasks, {"a": 0.50, "b": 0.55, "c": 0.30})
    assert "overlaps with that of a: this run does not show that it is better" in text


def test_without_intervals_nothing_is_called_sure(make_score, tasks) -> None:
    text = found(make_score, tasks, {"a": 0.5, "b": 0.9}, low=None, high=None)
    assert "There are no intervals" in text


def test_models_that_may_be_guessing_are_named(make_score, tasks) -> None:
    text = found(make_score, tasks, {"good": 0.5, "weak": 0.29, "random choice": 0.25})
    assert "Not shown to be above random choice (25.0 %) on the medical average: weak." in text
    text = found(make_score, tasks, {"weak": 0.29, "random choice": 0.25})
    assert "No model is shown to be above random choice" in text


def test_numbers_that_print_the_same_have_no_winner(make_score, tasks) -> None:
    text = found(make_score, tasks, {"x": 0.2081, "y": 0.2079, "z": 0.208, "low": 0.1})
    assert "x, y and z share the highest medical average, 20.8 %." in text
    assert "Their intervals overlap with that of no other model" in text
    text = found(make_score, tasks, {"x": 0.208, "y": 0.208}, low=None, high=None)
    assert text.endswith("x and y share the highest medical average, 20.8 %.")


def test_an_interval_wholly_below_chance_is_said_to_be_below(make_score, tasks) -> None:
    text = found(make_score, tasks, {"bad": 0.1, "weak": 0.26, "random choice": 0.253})
    assert "Below random choice (25.3 %) on the medical average: bad." in text
    assert "Not shown to be above random choice (25.3 %) on the medical average: weak." in text
    text = found(make_score, tasks, {"a": 0.1, "b": 0.11, "random choice": 0.253})
    assert "Below random choice (25.3 %) on the medical average: every model (a and b)." in text
    assert "Every model is above" not in text


def test_models_below_the_majority_choice_are_named(make_score, tasks) -> None:
    scores = [
        make_score(model, task, value, model_kind=kind)
        for model, value, kind in (
            ("a", 0.30, "model"),
            ("b", 0.50, "model"),
            ("majority choice", 0.34, "baseline"),
        )
        for task in ("anatomy", "heart", "average")
    ]
    text = " ".join(findings(index_results(scores, tasks, []), {}, []))
    assert "most frequent answer (34.0 %, majority choice): a." in text


def test_a_trained_model_is_compared_with_its_parent(make_score, tasks) -> None:
    text = found(make_score, tasks, {"a": 0.5, "b": 0.49}, ["b"], {"b": "a"})
    assert "b against a, which it was trained from: \N{MINUS SIGN}1.0 points" in text
    assert "(intervals overlap)" in text


def test_a_model_whose_parent_was_not_measured_is_not_compared(make_score, tasks) -> None:
    assert "against" not in found(make_score, tasks, {"b": 0.49}, ["b"], {"b": "a"})


def test_nothing_measured_is_said() -> None:
    assert findings(index_results([], [], []), {}, []) == ("Nothing was measured.",)
