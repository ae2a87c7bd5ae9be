"""Prompts to the byte, and which examples stand in them."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from biomistral.benchmark.prompts import (
    build_requests,
    build_validation_requests,
    draw_examples,
    order_of,
)
from biomistral.errors import InputError
from biomistral.recipe.settings import EvaluateSettings


def settings(**changes):
    return EvaluateSettings(**{"models": ["m"], "shots": 2, "seeds": [1, 2, 3], **changes})


@pytest.fixture
def herbs(make_question):
    """Two tasks: herbs in English and French (4 asked, 6 examples), soil in English."""
    return [
        make_question(n, task=task, language=language, split=split, stem=f"{language} {split} {n}?")
        for task, language in (("soil", "en"), ("herbs", "fr"), ("herbs", "en"))
        for split, numbers in (("test", range(4)), ("train", range(6)))
        for n in numbers
    ]


def test_the_letter_prompt_is_the_published_one_to_the_byte(make_question):
    shot = make_question(
        1, split="train", stem="Is it so?", choices=("yes", "no"), gold=1, context="We saw 3."
    )
    asked = make_question(2, stem="Which  herb?\nSay", choices=("bark", "moss", "reed"), gold=2)
    (request,) = build_requests([shot, asked], settings(shots=1, seeds=[1]))
    assert request.prompt == (
        "The following are multiple choice questions (with answers) about medical knowledge. \n "
        "We saw 3. \n **Question:** Is it so? \n (A) yes \n (B) no \n **Answer:**(B \n "
        "**Question:** Which  herb?\nSay \n (A) bark \n (B) moss \n (C) reed \n **Answer:**("
    )
    assert request.continuations == ("A", "B", "C")
    assert (request.gold, request.shots, request.seed, request.scoring) == (2, 1, 1, "letter")


def test_the_cloze_prompt_shows_no_choice_but_the_right_one_of_examples(make_question):
    shot = make_question(1, split="train", stem="Is it so?", choices=("yes", "no"), gold=1)
    asked = make_question(
        2, stem="Which?", context="We saw 3.", choices=("bark tea", "moss"), gold=0
    )
    (request,) = build_requests([shot, asked], settings(shots=1, seeds=[1], scoring="cloze"))
    assert request.prompt == (
        "Question: Is it so?\nAnswer: no\n\nWe saw 3.\nQuestion: Which?\nAnswer:"
    )
    assert request.continuations == (" bark tea", " moss")


def test_without_shots_the_prompt_is_instruction_and_question_and_one_seed_is_enough(make_question):
    requests = build_requests([make_question(1, stem="Q?")], settings(shots=0))
    assert [request.seed for request in requests] == [1]
    assert requests[0].prompt == (
        "The following are multiple choice questions (with answers) about medical knowledge. \n "
        "**Question:** Q? \n (A) bark \n (B) moss \n (C) reed \n **Answer:**("
    )


def test_requests_come_by_task_language_scoring_seed_and_question(herbs):
    requests = build_requests(herbs, settings(scoring=["cloze", "letter"], seeds=[7, 3]))
    keys = [(r.task, r.language, r.scoring, r.seed, r.question_id) for r in requests]
    assert keys == [
        (task, language, scoring, seed, str(n))
        for task, language in (("herbs", "en"), ("herbs", "fr"), ("soil", "en"))
        for scoring in ("cloze", "letter")
        for seed in (7, 3)
        for n in range(4)
    ]


def test_examples_are_never_the_question_asked_nor_any_other_test_question(herbs):
    for request in build_requests(herbs, settings(shots=6)):
        examples = request.prompt.rpartition("**Question:**")[0]
        assert " test " not in examples
        assert examples.count(f"{request.language} train") == 6
        assert request.prompt.count(" test ") == 1


def test_all_questions_of_a_seed_share_their_examples(herbs):
    requests = build_requests(herbs, settings())
    openings: dict[tuple, set] = {}
    for request in requests:
        opening = request.prompt.rpartition("**Question:**")[0]
        openings.setdefault((request.task, request.language, request.seed), set()).add(opening)
    assert all(len(values) == 1 for values in openings.values())
    assert len({next(iter(openings["herbs", "en", seed])) for seed in (1, 2, 3)}) > 1


def test_languages_show_the_same_examples(herbs):
    requests = build_requests(herbs, settings())
    prompts = {(r.task, r.language, r.seed, r.question_id): r.prompt for r in requests}
    for seed in (1, 2, 3):
        english = prompts["herbs", "en", seed, "0"]
        assert english.replace("en t", "fr t") == prompts["herbs", "fr", seed, "0"]


def test_a_language_that_lacks_an_example_shows_the_next_of_the_same_order(make_question):
    english = [make_question(n, split="train") for n in range(8)]
    order = [example.id for example in draw_examples(english, 8, seed=5)]
    partial = [e for e in english if e.id != order[1]]
    assert [e.id for e in draw_examples(partial, 3, seed=5)] == [order[0], order[2], order[3]]


def test_the_draw_does_not_depend_on_the_order_of_the_pool(make_question):
    pool = [make_question(n, split="train") for n in range(30)]
    assert draw_examples(pool, 3, seed=1) == draw_examples(pool[::-1], 3, seed=1)


def test_every_example_is_drawn_about_equally_often(make_question):
    pool = [make_question(n, split="train") for n in range(5)]
    counts = dict.fromkeys(range(5), 0)
    for seed in range(500):
        for example in draw_examples(pool, 2, seed):
            counts[int(example.id)] += 1
    # Binomial(500, 0.4): mean 200, deviation 11; fixed seeds, so this holds always or never.
    assert all(150 < count < 250 for count in counts.values())


def test_a_language_with_too_few_examples_shows_english_ones(herbs):
    without = [q for q in herbs if (q.language, q.split) != ("fr", "train") or q.id == "0"]
    requests = build_requests(without, settings())
    french = [r for r in requests if r.language == "fr"]
    assert french
    assert all(r.prompt.count("en train") == 2 and "fr train" not in r.prompt for r in french)


def test_too_few_examples_is_an_error_with_their_number(make_question):
    questions = [make_question(1), make_question(2, split="train")]
    with pytest.raises(InputError, match=r"task herbs \(en\): 2 shots .* only 1 train"):
        build_requests(questions, settings())


def test_nothing_to_ask_is_an_error(make_question):
    with pytest.raises(InputError, match="no question of the split test"):
        build_requests([make_question(1, split="train")], settings())


def test_prompts_do_not_depend_on_the_hash_seed():
    program = (
        "from biomistral.benchmark.prompts import build_requests\n"
        "from biomistral.recipe.settings import EvaluateSettings\n"
        "from biomistral.records import Question\n"
        "q = [Question(str(n), 't', 'en', s, f'{s} {n}', ('a', 'b'), 0)\n"
        "     for n in range(20) for s in ('train', 'test')]\n"
        "import hashlib\n"
        "text = repr(build_requests(q, EvaluateSettings(models=['m'])))\n"
        "print(hashlib.sha256(text.encode()).hexdigest())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "77")
    }
    assert len(outputs) == 1


# --- other ways to ask ----------------------------------------------------------------------------


def test_orders_are_as_it_is_then_rotations_so_that_each_choice_stands_everywhere(make_question):
    question = make_question(1, choices=("a", "b", "c", "d"))
    orders = [order_of(question, number) for number in range(8)]
    assert orders[0] == ()
    for block in ([(0, 1, 2, 3), *orders[1:4]], orders[4:]):
        assert all(sorted(place) == [0, 1, 2, 3] for place in zip(*block, strict=True))
        assert all(sorted(order) == [0, 1, 2, 3] for order in block)
    assert orders[4:] == [order_of(question, number) for number in range(4, 8)]


def test_each_seed_has_its_order_and_letters_stay_with_their_choices(make_question):
    question = make_question(1, choices=("bark", "moss", "reed"), gold=2)
    pool = [make_question(n, split="train") for n in range(3)]
    requests = build_requests([question, *pool], settings(permutations=2))
    assert [r.order for r in requests] == [(), (1, 2, 0), ()]
    first, second, _ = requests
    assert first.continuations == ("A", "B", "C")
    assert second.continuations == ("C", "A", "B")
    assert "(A) moss \n (B) reed \n (C) bark" in second.prompt
    assert {r.gold for r in requests} == {2}


def test_without_shots_there_is_one_request_for_each_order(make_question):
    questions = [make_question(1)]
    requests = build_requests(questions, settings(shots=0, permutations=2, seeds=[5, 6, 7]))
    assert [(r.seed, r.order) for r in requests] == [(5, ()), (6, (1, 2, 0))]
    cloze = build_requests(questions, settings(shots=0, permutations=2, scoring="cloze"))
    assert [(r.seed, r.order) for r in cloze] == [(1, ())]


def test_cloze_shows_no_choices_and_has_no_order(make_question, herbs):
    requests = build_requests(herbs, settings(permutations=3, scoring="cloze"))
    assert {r.order for r in requests} == {()}


def test_examples_per_question_differ_and_follow_from_seed_and_id(make_question):
    pool = [make_question(n, split="train", stem=f"train {n}?") for n in range(40)]
    asked = [make_question(n, stem=f"test {n}?") for n in range(12)]
    per_question = settings(examples="per_question", shots=3, seeds=[1])
    requests = build_requests([*asked, *pool], per_question)
    shown = [r.prompt.rpartition("**Question:**")[0] for r in requests]
    assert len(set(shown)) == 12
    assert all(text.count("train") == 3 for text in shown)
    assert all(len(set(re.findall(r"train \d+", text))) == 3 for text in shown)
    alone = build_requests([asked[5], *pool[::-1]], per_question)
    assert alone[0].prompt == requests[5].prompt


def test_examples_in_english_where_they_are_there(herbs):
    requests = build_requests(herbs, settings(example_language="english"))
    assert all(" fr train" not in r.prompt and r.prompt.count("en train") == 2 for r in requests)
    french = [q for q in herbs if q.language == "fr"]
    assert "fr train" in build_requests(french, settings(example_language="english"))[0].prompt


@pytest.fixture
def with_stored(make_question):
    """One French question with two stored examples for seeds 1 and 2, which are English."""
    examples = [make_question(n, id=f"s{n}", split="train", stem=f"stored {n}?") for n in range(4)]
    keys = ("1:s3", "1:s0", "2:s1", "2:s2")
    return [make_question(1, language="fr", stem="demandé ?", stored_shots=keys), *examples]


def test_stored_examples_are_shown_in_their_order(with_stored):
    requests = build_requests(with_stored, settings(examples="stored", seeds=[1, 2]))
    shown = [re.findall(r"stored (\d)", r.prompt) for r in requests]
    assert shown == [["3", "0"], ["1", "2"]]
    fewer = build_requests(with_stored, settings(examples="stored", seeds=[1], shots=1))
    assert re.findall(r"stored (\d)", fewer[0].prompt) == ["3"]


def test_stored_examples_of_another_seed_or_in_larger_number_are_not_there(with_stored):
    for changes in ({"seeds": [7]}, {"shots": 3}):
        with pytest.raises(InputError, match=r"question '1' of herbs.*seeds: 1, 2"):
            build_requests(with_stored, settings(examples="stored", **changes))


def test_stored_examples_are_in_no_other_pool(with_stored):
    with pytest.raises(InputError, match="only 0 train or validation questions"):
        build_requests(with_stored, settings())


def test_truthfulqa_is_always_asked_without_examples(make_question, herbs):
    truthful = [make_question(n, task="truthfulqa_science") for n in range(2)]
    requests = build_requests([*truthful, *herbs], settings())
    found = {(r.shots, r.seed) for r in requests if r.task == "truthfulqa_science"}
    assert found == {(0, 1)}


def test_the_words_around_a_question_may_be_those_of_its_language(herbs):
    requests = build_requests(herbs, settings(prompt_language="question"))
    french = [r for r in requests if r.language == "fr"]
    assert french
    assert all(r.prompt.endswith("**Réponse:**(") for r in french)


def _pool(make_question, *, validation, train=0, language="en"):
    splits = ["train"] * train + ["validation"] * validation
    return [
        make_question(100 + index, split=split, language=language)
        for index, split in enumerate(splits)
    ]


def test_validation_questions_are_asked_like_test_questions(make_question):
    questions = [make_question(1), *_pool(make_question, validation=5, train=6)]
    found = build_validation_requests(questions, settings(shots=1, validation=3, seeds=[1, 2]))
    tested = build_requests(questions, settings(shots=1, seeds=[1, 2]))
    ids = {request.question_id for request in found}
    assert len(ids) == 3
    assert ids <= {str(100 + index) for index in range(6, 11)}
    assert len(found) == 2 * 3
    for seed in (1, 2):  # worked examples are those of the test questions
        [shown] = {r.prompt.rsplit("**Question:**", 1)[0] for r in found if r.seed == seed}
        assert (
            shown == next(r.prompt for r in tested if r.seed == seed).rsplit("**Question:**", 1)[0]
        )


@pytest.mark.parametrize("examples", ["per_task", "per_question"])
def test_no_validation_question_shows_its_own_answer(make_question, examples):
    questions = [make_question(1), *_pool(make_question, validation=12)]
    found = build_validation_requests(questions, settings(shots=3, examples=examples))
    assert found
    for request in found:
        assert request.prompt.count(f"fever {request.question_id}?") == 1
    by_seed = [{r.question_id for r in found if r.seed == seed} for seed in (1, 2, 3)]
    assert by_seed[0] == by_seed[1] == by_seed[2]


def test_validation_questions_are_none_where_none_are_wanted_or_left(make_question):
    questions = [make_question(1), *_pool(make_question, validation=2)]
    assert build_validation_requests(questions, settings(shots=0))
    assert not build_validation_requests(questions, settings(shots=0, validation=0))
    assert not build_validation_requests(questions, settings(shots=2))  # both are examples
    assert not build_validation_requests(questions[:1], settings(shots=0))
    french = _pool(make_question, validation=2, language="fr")
    assert not build_validation_requests([make_question(1), *french], settings(shots=0))


def test_fewer_shots_change_prompts_and_not_which_validation_questions(make_question):
    questions = [make_question(1), *_pool(make_question, validation=9)]
    wanted = settings(shots=3, validation=4)
    whole, bare = (build_validation_requests(questions, wanted, shots=s) for s in (None, 0))
    assert {r.question_id for r in whole} == {r.question_id for r in bare}
    assert {r.shots for r in bare} == {0}


def test_a_limit_holds_for_validation_questions(make_question):
    questions = [make_question(1), *_pool(make_question, validation=9)]
    found = build_validation_requests(questions, settings(shots=0, limit=2))
    assert len({r.question_id for r in found}) == 2
