from __future__ import annotations

from dataclasses import replace

from biomistral.records import Comparison
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


def test_what_is_shown_to_be_better_is_what_the_tests_between_models_say(make_score, tasks) -> None:
    def test(first: str, second: str, difference: float, p_value: float, **where) -> Comparison:
        place = {"task": "average", "group": "medical", "language": "en", "shots": 3, **where}
        measured = Comparison(
            *(first, second, "average", "medical", "en", "letter", 3, difference, -0.1, 0.1),
            *(p_value, p_value, 0, 0, None, None, None, None, 100, 3),
        )
        return replace(measured, **place)

    scores = [
        make_score(model, task, value)
        for model, value in {"a": 0.50, "b": 0.55, "c": 0.54}.items()
        for task in ("anatomy", "heart", "average")
    ]
    results = index_results(scores, tasks, [])

    def text(*comparisons: Comparison) -> str:
        return " ".join(findings(results, {"b": "a", "c": "b"}, ["b", "c"], comparisons))

    # All intervals overlap, and yet the tests on the same questions tell b from a.
    tests = [test("a", "b", -0.05, 0.01), test("b", "c", 0.01, 0.3), test("a", "c", -0.04, 0.2)]
    assert "That it is better than c is not shown (paired tests, corrected)." in text(*tests)
    assert "b against a, which it was trained from: +5.0 points" in text(*tests)
    assert "(more than chance)" in text(*tests)
    assert "c against b, which it was trained from: \N{MINUS SIGN}1.0 points" in text(*tests)
    assert "(may be chance)" in text(*tests)
    assert "interval overlaps" not in text(*tests)
    sure = [tests[0], replace(tests[1], p_bootstrap_holm=0.01), tests[2]]
    assert "It is shown to be better than every other model." in text(*sure)
    # Tests of other questions say nothing of these, nor do some of the pairs without the rest.
    for other in ([test("a", "b", -0.05, 0.01, language="fr")], tests[:1]):
        assert "overlaps with those of a and c: this run does not show" in text(*other)
