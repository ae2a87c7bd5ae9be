from __future__ import annotations

import pytest
from pydantic import ValidationError

from biomistral.serving.requests import ChatBody, ChoicesBody, CompletionBody

HELLO = [{"role": "user", "content": "hello"}]


def test_openais_defaults_are_meant() -> None:
    sampling = CompletionBody(prompt="x").sampling(16, 0, 0)
    assert (sampling.temperature, sampling.top_p, sampling.seed) == (1.0, 1.0, None)
    assert CompletionBody(prompt="x").max_tokens == 16
    assert ChatBody(messages=HELLO).most_tokens is None


def test_each_answer_of_several_has_a_seed_of_its_own() -> None:
    body = ChatBody(messages=HELLO, n=3, seed=5)
    assert [body.sampling(1, 0, index).seed for index in range(3)] == [5, 6, 7]


@pytest.mark.parametrize(
    ("prompt", "read"),
    [
        ("x", ["x"]),
        ("", [""]),
        (["x", "y"], ["x", "y"]),
        ([1, 2], [[1, 2]]),
        ([[1], [2, 3]], [[1], [2, 3]]),
    ],
)
def test_a_prompt_has_four_forms(prompt, read) -> None:
    assert CompletionBody(prompt=prompt).prompts == read


@pytest.mark.parametrize("prompt", [[], [[]], [1, "x"], {"a": 1}, 5, [-1], [[1], "x"], None, [1.5]])
def test_any_other_prompt_is_refused(prompt) -> None:
    with pytest.raises(ValidationError, match="wanted is a text, a list of texts"):
        CompletionBody(prompt=prompt)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"temperature": -1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": 0}, "\nn\n"),
        ({"stop": [""]}, "none of them empty"),
        ({"stop": ["x"] * 17}, "at most 16"),
        ({"presence_penalty": 0.5}, "not supported"),
        ({"logit_bias": {"5": 1}}, "not supported"),
        ({"max_tokens": 0}, "0 with echo"),
        ({"best_of": 3}, "best_of"),
        ({"suffix": "end"}, "suffix"),
        ({"logprobs": 21}, "logprobs"),
        ({"echo": True, "stream": True}, "echo"),
        ({"stream_options": {"include_usage": True}}, "without stream"),
        ({"frequency_penaltie": 1}, "frequency_penaltie"),
    ],
)
def test_what_cannot_be_done_is_refused(change, words) -> None:
    with pytest.raises(ValidationError, match=words):
        CompletionBody(prompt="x", **change)


@pytest.mark.parametrize(
    "change",
    [
        {"user": "me"},
        {"metadata": {"a": "b"}},
        {"best_of": 1},
        {"presence_penalty": 0},
        {"stop": "x"},
    ],
)
def test_what_says_nothing_about_the_answer_is_taken(change) -> None:
    assert CompletionBody(prompt="x", **change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "images, sound"),
        ({"tools": [{"type": "function"}]}, "not supported; leave them out"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"top_logprobs": 3}, "without logprobs"),
        ({"max_tokens": 0}, "max_tokens"),
    ],
)
def test_chats_that_cannot_be_held_are_refused(change, words) -> None:
    with pytest.raises(ValidationError, match=words):
        ChatBody(**{"messages": HELLO, **change})


def test_messages_in_parts_are_joined_and_developers_are_systems() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    body = ChatBody(messages=[{"role": "developer", "content": parts}])
    assert body.messages[0].as_text() == {"role": "system", "content": "ab"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "give either prompt"),
        ({"prompt": "x", "question": "y"}, "give either prompt"),
        ({"prompt": "x", "options": ["a"]}, "options"),
        ({"prompt": "x", "options": ["a", " "]}, "one is empty"),
        ({"prompt": "x", "context": "y"}, "context"),
        ({"prompt": "x", "options": ["a"] * 14}, "options"),
        ({"question": "y", "scoring": "best"}, "scoring"),
    ],
)
def test_choices_that_cannot_be_weighed_are_refused(change, words) -> None:
    with pytest.raises(ValidationError, match=words):
        ChoicesBody(**{"options": ["a", "b"], **change})
