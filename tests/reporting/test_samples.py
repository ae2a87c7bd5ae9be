from __future__ import annotations

import math

from biomistral.records import Prediction, Question
from biomistral.reporting.samples import NUM_SAMPLES, choose, make_sample, shortened

KEYS = [(lang, task, f"{task}-{i}") for lang in ("en", "ar") for task in "abc" for i in range(9)]


def test_every_language_is_shown_and_tasks_take_turns() -> None:
    chosen = choose(KEYS, ["en", "ar"])
    assert len(chosen) == 6
    assert {key[:2] for key in chosen} == {(lang, task) for lang in ("en", "ar") for task in "abc"}


def test_never_more_than_a_taste() -> None:
    many = [("en", f"task{i}", str(i)) for i in range(50)]
    assert len(choose(many, ["en"])) == NUM_SAMPLES


def test_the_choice_does_not_depend_on_the_order_of_the_questions() -> None:
    assert choose(KEYS, ["en", "ar"]) == choose(KEYS[::-1], ["en", "ar"])


def test_no_question_no_sample() -> None:
    assert choose([], ["en"]) == []


def test_probabilities_are_renormalised_and_averaged_over_seeds() -> None:
    question = Question("1", "t", "ar", "test", "س", ("x", "y"), 0)
    predictions = [
        Prediction("1", "t", "ar", "m", 3, seed, "letter", (math.log(a), math.log(b)), 0)
        for seed, a, b in ((1, 0.4, 0.1), (2, 0.1, 0.1))
    ]
    sample = make_sample(question, "T", predictions, ["absent", "m"])
    (answer,) = sample.answers
    assert answer.choice == 0
    assert math.isclose(answer.probabilities[0], (0.8 + 0.5) / 2)
    assert math.isclose(sum(answer.probabilities), 1)
    assert sample.direction == "rtl"


def test_a_long_passage_is_cut_at_a_word_and_says_so() -> None:
    text = shortened("word " * 1000)
    assert len(text) < 1300
    assert text.endswith("word …")
    assert shortened("short") == "short"
