"""Which questions are evaluated and which are examples."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from biomistral.benchmark.selection import (
    MAX_EXAMPLES,
    aligned_samples,
    evenly_spaced,
    num_equal_choices,
    reasons,
    select,
)


def ids(questions):
    return [question.id for question in questions]


def test_evenly_spaced_by_hand():
    assert evenly_spaced(range(10), 5) == [1, 3, 5, 7, 9]
    assert evenly_spaced(range(10), 2) == [2, 7]
    assert evenly_spaced(range(10), 1) == [5]
    assert evenly_spaced(range(3), 5) == evenly_spaced(range(3), None) == [0, 1, 2]


@given(size=st.integers(0, 400), count=st.integers(0, 400))
def test_a_sample_has_its_size_keeps_order_and_has_even_gaps(size, count):
    sample = evenly_spaced(range(size), count)
    assert len(sample) == min(size, count)
    assert sample == sorted(set(sample))
    gaps = [after - before for before, after in itertools.pairwise(sample)]
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_a_language_with_the_ids_of_the_first_one_has_its_sample_whatever_its_order():
    samples = aligned_samples({"ar": list("gfedcba"), "en": list("abcdefg")}, 3)
    assert samples["ar"] == samples["en"] == {"b", "d", "f"}


def test_a_language_with_other_ids_has_a_sample_of_its_own():
    samples = aligned_samples({"en": list("abcd"), "fr": list("wxyz")}, 2)
    assert samples == {"en": {"b", "d"}, "fr": {"x", "z"}}


def test_a_short_first_language_does_not_shorten_the_others():
    samples = aligned_samples({"en": list("ab"), "fr": list("abcdef")}, 3)
    assert samples == {"en": {"a", "b"}, "fr": {"b", "d", "f"}}


def test_with_a_train_file_every_test_question_is_evaluated(make_question):
    tests = {"en": [make_question(n) for n in range(8)]}
    pools = {"en": [make_question(n, split="train", stem=f"other {n}") for n in range(5)]}
    chosen = select(tests, pools, limit=None, shots_needed=3)["en"]
    assert chosen.evaluated == tests["en"]
    assert chosen.examples == pools["en"]
    assert not reasons(chosen)


def test_without_one_the_examples_are_given_up_by_the_test(make_question):
    tests = {"en": [make_question(n) for n in range(20)]}
    chosen = select(tests, {}, limit=None, shots_needed=4)["en"]
    assert len(chosen.evaluated) == 16
    assert len(chosen.examples) == 4
    assert not set(ids(chosen.evaluated)) & set(ids(chosen.examples))
    assert {example.split for example in chosen.examples} == {"train"}
    assert reasons(chosen) == {"kept as worked examples": 4}


def test_a_limit_changes_no_example_and_takes_no_new_question(make_question):
    tests = {"en": [make_question(n) for n in range(50)]}
    full = select(tests, {}, limit=None, shots_needed=4)["en"]
    limited = select(tests, {}, limit=10, shots_needed=4)["en"]
    assert limited.examples == full.examples
    assert len(limited.evaluated) == 10
    assert set(limited.evaluated) < set(full.evaluated)
    assert reasons(limited) == {"kept as worked examples": 4, "over the limit": 36}


def test_at_most_half_of_a_small_test_is_given_up(make_question):
    chosen = select({"en": [make_question(n) for n in range(6)]}, {}, limit=None, shots_needed=9)
    assert len(chosen["en"].evaluated) == len(chosen["en"].examples) == 3


def test_nothing_is_given_up_when_no_shots_are_needed(make_question):
    chosen = select({"en": [make_question(n) for n in range(6)]}, {}, limit=None, shots_needed=0)
    assert len(chosen["en"].evaluated) == 6


def test_translations_give_up_and_evaluate_the_same_questions(make_question):
    tests = {
        code: [make_question(n, language=code, stem=f"{code} {n}") for n in range(30)]
        for code in ("fr", "en", "zh")
    }
    chosen = select(tests, {}, limit=7, shots_needed=5)
    for code in ("fr", "zh"):
        assert ids(chosen[code].evaluated) == ids(chosen["en"].evaluated)
        assert ids(chosen[code].examples) == ids(chosen["en"].examples)


def test_english_examples_serve_other_languages_so_their_tests_give_up_nothing(make_question):
    tests = {"fr": [make_question(n, language="fr") for n in range(6)]}
    pools = {"en": [make_question(n, split="train") for n in range(4)]}
    chosen = select(tests, pools, limit=None, shots_needed=3)
    assert len(chosen["fr"].evaluated) == 6
    assert chosen["fr"].examples == []
    assert len(chosen["en"].examples) == 4


def test_a_question_given_up_in_one_language_is_asked_in_none(make_question):
    tests = {
        "en": [make_question(n) for n in range(20)],
        "fr": [make_question(n, language="fr") for n in range(0, 20, 2)],
    }
    chosen = select(tests, {}, limit=None, shots_needed=4)
    examples = {example.id for selection in chosen.values() for example in selection.examples}
    asked = {question.id for selection in chosen.values() for question in selection.evaluated}
    assert not examples & asked


def test_an_example_with_question_and_answer_of_a_test_question_is_dropped(make_question):
    test = make_question(1, stem="Which  Herb?", choices=("bark", "moss"), gold=0)
    giveaway = make_question(5, split="train", stem="which herb?", choices=("fern", "Bark"), gold=1)
    other_answer = make_question(
        6, split="train", stem="which herb?", choices=("fern", "Bark"), gold=0
    )
    chosen = select({"en": [test]}, {"en": [giveaway, other_answer]}, limit=None, shots_needed=1)
    assert chosen["en"].examples == [other_answer]
    assert reasons(chosen["en"]) == {"examples that give an answer away": 1}


def test_a_large_train_file_is_thinned_out(make_question):
    pool = [make_question(n, split="train", stem=f"x {n}") for n in range(MAX_EXAMPLES + 50)]
    chosen = select({"en": [make_question(0)]}, {"en": pool}, limit=None, shots_needed=1)
    assert len(chosen["en"].examples) == MAX_EXAMPLES


def test_equal_choices_are_counted(make_question):
    questions = [make_question(1), make_question(2, choices=("a", "a", "b"))]
    assert num_equal_choices(questions) == 1
