"""Test questions that stand in other texts."""

from __future__ import annotations

import pytest

from biomistral.benchmark.contamination import by_task, overlaps, runs_of

LONG = "In the third valley a healer gave her patient the bark of a grey willow at dawn"


def test_a_question_is_found_whatever_stands_around_it(make_question):
    asked = [make_question(1, stem=LONG), make_question(2, stem=LONG.replace("dawn", "noon"))]
    text = f"Preface. {LONG.upper()}, and more."
    first, second = overlaps(asked, ["nothing", text], width=8)
    assert first.num_found == first.num_runs == 10
    assert (second.num_runs, second.num_found) == (10, 9)
    assert (first.share, second.share) == (1.0, 0.9)


def test_no_run_crosses_from_the_stem_to_the_choices(make_question):
    stem, choice = "one two three four", "five six seven eight"
    question = make_question(1, stem=stem, choices=(choice, "b", "c"), gold=0)
    (found,) = overlaps([question], [f"{stem} {choice}"], width=4)
    assert (found.num_runs, found.num_found) == (2, 2)
    (found,) = overlaps([question], ["three four five six"], width=4)
    assert found.num_found == 0


def test_short_questions_are_counted_as_not_judged(make_question):
    (found,) = overlaps([make_question(1)], [LONG])
    assert (found.num_runs, found.share) == (0, 0.0)


def test_examples_are_not_looked_for(make_question):
    assert runs_of([make_question(1, split="train", stem=LONG)]) == {}
    assert overlaps([], [LONG]) == []


def test_the_table_tells_tasks_and_ids_and_never_words(make_question):
    asked = [
        make_question(1, stem=LONG),
        make_question(2),
        make_question(3, stem=f"Not {LONG[::-1]}"),
    ]
    (line,) = by_task(overlaps(asked, [LONG], width=8))
    assert (line.task, line.language, line.num_questions) == ("herbs", "en", 3)
    assert (line.num_too_short, line.num_found, line.num_half_found) == (1, 1, 1)
    assert line.examples == ("1",)


@pytest.mark.parametrize(("seen", "half"), [(1, 0), (2, 1), (3, 1)])
def test_half_found_is_half_of_the_runs_or_more(make_question, seen, half):
    words = [f"w{n}" for n in range(7)]  # four runs of four words
    question = make_question(1, stem=" ".join(words))
    (line,) = by_task(overlaps([question], [" ".join(words[: 3 + seen])], width=4))
    assert (line.num_found, line.num_half_found) == (1, half)


def test_the_most_found_are_the_examples(make_question):
    words = [f"w{n}" for n in range(20)]
    asked = [make_question(n, stem=" ".join([*words[: 4 + n], *"abcdef"])) for n in range(7)]
    (line,) = by_task(overlaps(asked, [" ".join(words)], width=4))
    assert line.examples == ("6", "5", "4", "3", "2")
