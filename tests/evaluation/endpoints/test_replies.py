from __future__ import annotations

import json
import math

import pytest

from biomistral.evaluation.endpoints import replies
from biomistral.evaluation.endpoints.replies import Mode, Reply
from biomistral.recipe.endpoints import EndpointModel
from biomistral.records import UNSAID

SETTINGS = EndpointModel(endpoint="http://host/v1", model="m")


def _reply(*tokens, text=""):
    ranked = [(t, sorted(tops.items(), key=lambda top: -top[1])) for t, tops in tokens]
    return Reply(text, ranked, [])


def test_a_letter_is_the_sum_of_its_tokens_and_published_the_largest() -> None:
    tops = {"A": math.log(0.4), " A": math.log(0.1), "B": math.log(0.3), "the": math.log(0.05)}
    letter = replies.letter_answer(_reply(("A", tops)), "AB", published=False)
    assert letter.logprobs == pytest.approx((math.log(0.5), math.log(0.3)))
    published = replies.letter_answer(_reply(("A", tops)), "AB", published=True)
    assert published.logprobs == pytest.approx((math.log(0.4), math.log(0.3)))
    assert (letter.top, published.top) == ("", "A")


def test_a_letter_that_is_not_listed_gets_no_more_than_it_can_have() -> None:
    tops = {"A": math.log(0.7), "x": math.log(0.2)}
    answer = replies.letter_answer(_reply(("A", tops)), "AB", published=False)
    assert answer.logprobs[1] == pytest.approx(math.log(0.1))  # what is left over
    tops = {"A": math.log(0.5), "x": math.log(0.01)}
    answer = replies.letter_answer(_reply(("A", tops)), "AB", published=False)
    assert answer.logprobs[1] == pytest.approx(math.log(0.01))  # the least of the listed


def test_in_a_chat_the_token_behind_brackets_counts() -> None:
    reply = _reply(
        ("**", {"**": -0.1, "A": -3.0}), (" (", {" (": 0.0}), ("B", {"B": -0.2, "A": -2})
    )
    assert replies.letter_answer(reply, "AB", published=False).logprobs == (-2, -0.2)


def test_wrong_tokens_leave_the_words_to_be_read() -> None:
    reply = _reply(("The", {"The": -0.1, "It": -2.0}), text="The answer is (B).")
    assert replies.letter_answer(reply, "AB", published=False).logprobs == (UNSAID, 0.0)
    assert replies.letter_answer(reply, "AB", published=True).top == "B"
    reply = _reply(("The", {"The": -0.1}), text="The stone.")
    assert replies.letter_answer(reply, "AB", published=False).logprobs == (UNSAID, UNSAID)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        (" (B)", "B"),
        ("**B**", "B"),
        ("B. a stone", "B"),
        ("B\nbecause", "B"),
        ("(C) a plum, and not (A)", "C"),
        ("The answer is B", "B"),
        ("The correct answer is: **(D)**.", "D"),
        ("**Answer:**(B", "B"),
        ("Of these, (C) fits best.", "C"),
        ("A patient with fever", None),  # the article
        ("The answer is a stone", None),
        ("either (A) or (B)", None),
        ("E", None),  # no choice
        ("I cannot answer medical questions.", None),
        ("", None),
        ("b", None),
    ],
)
def test_the_letter_of_an_answer_in_words(text, letter) -> None:
    place = replies.letter_said(text, ("A", "B", "C", "D"))
    assert (None if place is None else "ABCD"[place]) == letter


def test_cloze_adds_up_the_tokens_behind_the_prompt_per_byte() -> None:
    echoed = [(0, None), (6, -1.0), (8, -2.0), (13, -4.0), (18, -9.0)]
    reply = Reply("", [], echoed)
    assert replies.cloze_logprob(reply, "Answer: ", "cold water") == pytest.approx(-6 / 10)


def test_a_token_over_the_border_counts_with_the_continuation() -> None:
    reply = Reply("", [], [(0, None), (5, -1.0), (9, -2.0)])
    assert replies.cloze_logprob(reply, "Answer", " no") == pytest.approx(-1 / 3)


def test_cloze_without_numbers_is_an_error() -> None:
    with pytest.raises(ValueError, match="no log-probabilities"):
        replies.cloze_logprob(Reply("", [], [(0, None)]), "", "x")


def test_both_forms_of_completions_are_read_alike() -> None:
    old = {"tokens": ["A"], "top_logprobs": [{"B": -2.0, "A": -0.5}]}
    tops = [{"token": "B", "logprob": -2.0}, {"token": "A", "logprob": -0.5}]
    new = {"content": [{"token": "A", "logprob": -0.5, "top_logprobs": tops}]}
    found = [
        replies.read_reply("completions", {"choices": [{"text": "A", "logprobs": listed}]})
        for listed in (old, new)
    ]
    assert found[0] == found[1]
    assert found[0].tokens == [("A", [("A", -0.5), ("B", -2.0)])]


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"choices": []},
        {"choices": [{"text": 3}]},
        {"choices": [{"text": "", "logprobs": {"tokens": ["a"], "top_logprobs": [{"a": 2.0}]}}]},
        {"choices": [{"text": "", "logprobs": {"tokens": ["a"], "top_logprobs": [{"a": "x"}]}}]},
        {"error": {"message": "no"}},
    ],
)
def test_nonsense_is_refused(data) -> None:
    with pytest.raises((ValueError, LookupError, TypeError, AttributeError)):
        replies.read_reply("completions", data)


def test_replies_survive_being_kept() -> None:
    reply = Reply("é", [("A", [("A", -0.5)])], [(0, None), (3, -1.5)], 3, 1)
    assert replies.Reply.from_json(json.loads(json.dumps(reply.to_json()))) == reply


def test_what_is_sent() -> None:
    body = replies.question_body(SETTINGS, Mode("completions", 5), "Q(")
    assert body == {"model": "m", "temperature": 0, "prompt": "Q(", "max_tokens": 1, "logprobs": 5}
    body = replies.question_body(SETTINGS, Mode("chat", 20), "Q(")
    assert (body["logprobs"], body["top_logprobs"]) == (True, 20)
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    body = replies.question_body(SETTINGS, Mode("chat", 0), "Q(")
    assert "logprobs" not in body


def test_parameters_are_added_and_null_takes_away() -> None:
    given = {"max_tokens": None, "max_completion_tokens": 99}
    settings = SETTINGS.model_copy(update={"parameters": given})
    body = replies.question_body(settings, Mode("chat", 0), "Q")
    assert "max_tokens" not in body
    assert body["max_completion_tokens"] == 99
