"""Training questions that are test questions, or nearly, are found and named."""

from __future__ import annotations

from biomistral.benchmark.refusals import Refusal, refuse

CASE = (
    "A ferryman of forty years comes with a fever that rose for three days after he slept beside "
    "the reed beds of the lower river, and his palms are yellow. What helps him?"
)


def _train(make_question, number=1, **changes):
    return make_question(number, split="train", task="training", **changes)


def test_the_same_question_is_refused_whatever_case_and_blanks(make_question):
    test = make_question(1, stem="Which herb cures it?", gold=0)
    copy = _train(make_question, 7, stem="which  HERB cures it? ", gold=0)
    [refusal] = refuse([copy], [test])
    assert refusal == Refusal("training", "en", "train", "7", "herbs", "1", "the same question")


def test_other_wrong_choices_or_another_order_make_no_other_question(make_question):
    test = make_question(1, stem="Which?", choices=("bark", "moss", "reed"), gold=0)
    reordered = _train(make_question, 1, stem="Which?", choices=("moss", "reed", "bark"), gold=1)
    others = _train(make_question, 2, stem="Which?", choices=("fern", "bark"), gold=1)
    free = _train(make_question, 3, stem="Which?", choices=("fern", "sage"), gold=1)
    assert [r.question_id for r in refuse([reordered, others, free], [test])] == ["1", "2"]


def test_a_reworded_beginning_does_not_hide_a_long_question(make_question):
    test = make_question(1, stem=CASE)
    changed = CASE.replace("A ferryman of forty years comes with", "Somebody has")
    [refusal] = refuse([_train(make_question, 5, stem=changed)], [test])
    assert (refusal.test_question_id, refusal.reason) == ("1", "words in a row")


def test_less_than_half_of_the_words_in_a_row_is_no_overlap(make_question):
    test = make_question(1, stem=CASE)
    shared = " ".join(CASE.split()[-18:])  # 6 of the 21 runs
    assert refuse([_train(make_question, 5, stem=f"Another story. {shared}")], [test]) == []


def test_what_is_shared_by_many_tests_is_laid_to_the_one_it_fits_best(make_question):
    tests = [
        make_question(1, stem=CASE + " Or what else may come of it, say it."),
        make_question(2, stem=CASE),
    ]
    [refusal] = refuse([_train(make_question, 5, stem=CASE + " Now.")], tests)
    assert refusal.test_question_id == "2"


def test_a_passage_counts_and_another_language_does_not(make_question):
    test = make_question(1, context=CASE, stem="Did it help?", language="fr")
    same = _train(make_question, 5, context=CASE, stem="Was it of use?")
    assert refuse([same], [test]) == []
    french = _train(make_question, 6, context=CASE, stem="Was it of use?", language="fr")
    assert [r.question_id for r in refuse([french], [test])] == ["6"]


def test_without_tests_nothing_is_refused(make_question):
    assert refuse([_train(make_question)], []) == []
