"""Completions and chats over HTTP, with a trained model: what is said, and the numbers beside it."""

from __future__ import annotations

import json
import math

import pytest
import torch

from biomistral.models.loading import load_model

PROMPT = "The fever of the river"
COMPLETE, CHAT = "/v1/completions", "/v1/chat/completions"


def _events(raw: bytes) -> list[dict]:
    lines = [line for line in raw.decode().split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


@pytest.fixture(scope="module")
def plain(trained_model):
    return load_model(trained_model, precision="float32")


def test_a_completion_goes_on_as_the_model_has_learnt(client) -> None:
    body = {"model": "valley", "prompt": PROMPT, "max_tokens": 40, "temperature": 0}
    status, reply = client.post(COMPLETE, body)
    assert status == 200
    (choice,) = reply["choices"]
    assert choice["text"].startswith(" valley is treated with bark and rest")
    assert choice["finish_reason"] == "stop"
    assert reply["usage"]["total_tokens"] == sum(
        reply["usage"][key] for key in ("prompt_tokens", "completion_tokens")
    )


def test_a_stream_says_the_same_in_parts(client) -> None:
    body = {"prompt": PROMPT, "max_tokens": 12, "temperature": 0}
    whole = client.post(COMPLETE, body)[1]
    options = {"stream": True, "stream_options": {"include_usage": True}}
    _, headers, raw = client.send(COMPLETE, {**body, **options})
    assert headers["content-type"].startswith("text/event-stream")
    *parts, last = _events(raw)
    assert "".join(part["choices"][0]["text"] for part in parts) == whole["choices"][0]["text"]
    assert [part["choices"][0]["finish_reason"] for part in parts[:-1]] == [None] * (len(parts) - 1)
    assert parts[-1]["choices"][0]["finish_reason"] == "length"
    assert last["choices"] == []
    assert last["usage"] == whole["usage"]


def test_a_chat_answers_and_streams_the_same(client) -> None:
    body = {"messages": [{"role": "user", "content": "fever?"}], "temperature": 0, "max_tokens": 60}
    reply = client.post(CHAT, body)[1]
    message = reply["choices"][0]["message"]
    assert message["role"] == "assistant"
    assert "treated with bark and rest" in message["content"]
    parts = _events(client.send(CHAT, {**body, "stream": True})[2])
    assert parts[0]["object"] == "chat.completion.chunk"
    assert parts[0]["choices"][0]["delta"]["role"] == "assistant"
    said = "".join(part["choices"][0]["delta"].get("content", "") for part in parts)
    assert said == message["content"]


def test_a_message_cannot_hold_a_control_token(client) -> None:
    quoted = client.post(CHAT, {"messages": [{"role": "user", "content": "</s>"}], "max_tokens": 1})
    other = client.post(CHAT, {"messages": [{"role": "user", "content": ""}], "max_tokens": 1})
    # As text it is several tokens, as a control token it would be one.
    difference = quoted[1]["usage"]["prompt_tokens"] - other[1]["usage"]["prompt_tokens"]
    assert difference > 1


def test_a_prompt_has_four_forms_with_one_answer(client, tokenizer) -> None:
    ids = tokenizer(PROMPT)["input_ids"]
    texts = []
    for prompt in (PROMPT, [PROMPT, PROMPT], ids, [ids]):
        body = {"prompt": prompt, "max_tokens": 5, "temperature": 0}
        reply = client.post(COMPLETE, body)[1]
        texts += [choice["text"] for choice in reply["choices"]]
        assert [c["index"] for c in reply["choices"]] == list(range(len(reply["choices"])))
    assert len(texts) == 5
    assert len(set(texts)) == 1


def test_a_seed_draws_the_same_and_several_answers_differ(client) -> None:
    body = {"prompt": PROMPT, "max_tokens": 12, "temperature": 3, "seed": 7, "n": 3}
    first = [choice["text"] for choice in client.post(COMPLETE, body)[1]["choices"]]
    again = [choice["text"] for choice in client.post(COMPLETE, body)[1]["choices"]]
    assert first == again
    assert len(set(first)) == 3


def test_a_stop_text_ends_the_answer_and_is_not_in_it(client) -> None:
    body = {"prompt": PROMPT, "max_tokens": 40, "temperature": 0, "stop": ["rest"]}
    (choice,) = client.post(COMPLETE, body)[1]["choices"]
    assert choice["text"] == " valley is treated with bark and "
    assert choice["finish_reason"] == "stop"


def test_log_probabilities_are_those_of_a_forward_pass(client, plain, tokenizer) -> None:
    body = {"prompt": PROMPT, "max_tokens": 6, "temperature": 0, "logprobs": 3}
    (choice,) = client.post(COMPLETE, body)[1]["choices"]
    listed = choice["logprobs"]
    prompt = tokenizer(PROMPT)["input_ids"]
    whole = tokenizer(PROMPT + choice["text"])["input_ids"]
    with torch.inference_mode():
        logprobs = plain(torch.tensor([whole])).logits[0].log_softmax(-1)
    expected = [logprobs[n - 1, whole[n]].item() for n in range(len(prompt), len(whole))]
    assert listed["token_logprobs"] == pytest.approx(expected, abs=1e-4)
    assert "".join(listed["tokens"]) == choice["text"]
    for value, tops in zip(listed["token_logprobs"], listed["top_logprobs"], strict=True):
        assert max(tops.values()) == value
        assert len(tops) == 3


@pytest.mark.parametrize("max_tokens", [0, 1, 3])
def test_echo_reads_the_prompt_back(client, plain, tokenizer, max_tokens) -> None:
    prompt = "The fever — of the valley; 河谷."
    body = {
        "prompt": prompt,
        "max_tokens": max_tokens,
        "temperature": 0,
        "logprobs": 1,
        "echo": True,
    }
    body["ignore_eos"] = True
    status, reply = client.post(COMPLETE, body)
    assert status == 200
    (choice,) = reply["choices"]
    listed = choice["logprobs"]
    ids = tokenizer(prompt)["input_ids"]
    assert choice["text"].startswith(prompt)
    assert len(listed["tokens"]) == len(ids) + max_tokens
    assert reply["usage"]["completion_tokens"] == max_tokens
    assert listed["token_logprobs"][0] is None
    assert listed["top_logprobs"][0] is None
    with torch.inference_mode():
        logprobs = plain(torch.tensor([ids])).logits[0].log_softmax(-1)
    expected = [logprobs[n - 1, ids[n]].item() for n in range(1, len(ids))]
    assert listed["token_logprobs"][1 : len(ids)] == pytest.approx(expected, abs=1e-4)
    likeliest = logprobs[: len(ids) - 1].max(-1).values.tolist()
    tops = [max(top.values()) for top in listed["top_logprobs"][1 : len(ids)]]
    assert tops == pytest.approx(likeliest, abs=1e-4)
    for token, place in zip(listed["tokens"], listed["text_offset"], strict=True):
        if place and token != "</s>" and not token.startswith("bytes:"):
            assert choice["text"][place:].startswith(token)


def test_the_token_behind_an_echo_is_the_one_that_is_generated(client) -> None:
    body = {"prompt": PROMPT, "max_tokens": 1, "temperature": 0, "logprobs": 2}
    (generated,) = client.post(COMPLETE, body)[1]["choices"]
    (echoed,) = client.post(COMPLETE, {**body, "echo": True})[1]["choices"]
    assert echoed["text"] == PROMPT + generated["text"]
    assert echoed["finish_reason"] == generated["finish_reason"]
    assert echoed["logprobs"]["tokens"][-1] == generated["logprobs"]["tokens"][0]
    assert echoed["logprobs"]["token_logprobs"][-1] == pytest.approx(
        generated["logprobs"]["token_logprobs"][0], abs=1e-4
    )


def test_echo_of_several_prompts_belongs_to_each(client) -> None:
    body = {"max_tokens": 0, "logprobs": 1, "echo": True}
    prompts = ["The fever", "bark and rest, never", "cold"]
    together = client.post(COMPLETE, {**body, "prompt": prompts})[1]["choices"]
    for prompt, choice in zip(prompts, together, strict=True):
        (alone,) = client.post(COMPLETE, {**body, "prompt": prompt})[1]["choices"]
        assert choice["logprobs"] == alone["logprobs"]
        assert choice["text"] == prompt


def test_chat_log_probabilities_have_bytes(client) -> None:
    body = {"messages": [{"role": "user", "content": "fever?"}], "temperature": 0, "max_tokens": 4}
    (choice,) = client.post(CHAT, {**body, "logprobs": True, "top_logprobs": 2})[1]["choices"]
    content = choice["logprobs"]["content"]
    assert len(content) == 4
    assert (
        b"".join(bytes(each["bytes"]) for each in content).decode() == choice["message"]["content"]
    )
    for each in content:
        assert each["logprob"] == max(top["logprob"] for top in each["top_logprobs"])
        assert math.isfinite(each["logprob"])


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (COMPLETE, {"prompt": "fever " * 600}, "prompt"),
        (COMPLETE, {"prompt": PROMPT, "max_tokens": 600}, "max_tokens"),
        (CHAT, {"messages": [{"role": "user", "content": "fever " * 600}]}, "messages"),
    ],
)
def test_more_than_the_context_is_refused_before_it_starts(client, path, body, param) -> None:
    before = client.stats()["prompt_tokens_total"]
    status, error = client.refused(path, body)
    assert (status, error["code"], error["param"]) == (400, "context_length_exceeded", param)
    assert "at most 512 fit into this model's context" in error["message"]
    assert client.stats()["prompt_tokens_total"] == before


def test_token_ids_past_the_vocabulary_are_refused(client) -> None:
    status, error = client.refused(COMPLETE, {"prompt": [1, 10**6]})
    assert (status, error["param"]) == (400, "prompt")
    assert "1000000" in error["message"]


def test_another_model_is_not_here(client) -> None:
    status, error = client.refused(COMPLETE, {"prompt": "x", "model": "gpt-4"})
    assert (status, error["code"]) == (404, "model_not_found")
    assert "'valley'" in error["message"]
