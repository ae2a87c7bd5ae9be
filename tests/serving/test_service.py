"""Waiting, time, cancelling and many at once, over HTTP with the real engine."""

from __future__ import annotations

import asyncio
import http.client
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from biomistral.models.conversations import conversation_ids, plain_ids
from biomistral.serving.metrics import server_metrics
from biomistral.serving.service import Service

COMPLETE = "/v1/completions"
LONG = {"prompt": "The fever", "max_tokens": 480, "ignore_eos": True, "temperature": 1}


def _idle(client, seconds: float = 90) -> dict[str, float]:
    """Wait until nothing runs any more."""
    end = time.monotonic() + seconds
    while True:
        stats = client.stats()
        busy = stats["jobs_running"] + stats["jobs_waiting"] + stats["sequences_running"]
        if not busy:
            return stats
        assert time.monotonic() < end, stats
        time.sleep(0.02)


def _begin(client, body) -> http.client.HTTPConnection:
    """Send a request and do not wait for its answer."""
    connection = http.client.HTTPConnection(client.base.removeprefix("http://"), timeout=30)
    connection.request("POST", COMPLETE, json.dumps(body), {"Content-Type": "application/json"})
    return connection


def test_two_hundred_requests_at_once_lose_none(start_server, opened) -> None:
    with start_server(opened, max_batch=4, queue=256) as client:
        bodies = [
            {"prompt": f"The fever {n}", "max_tokens": 1 + n % 5, "ignore_eos": True}
            for n in range(200)
        ]
        with ThreadPoolExecutor(200) as pool:
            replies = list(pool.map(lambda body: client.post(COMPLETE, body), bodies))
        assert [status for status, _ in replies] == [200] * 200
        generated = [reply["usage"]["completion_tokens"] for _, reply in replies]
        assert generated == [body["max_tokens"] for body in bodies]
        stats = _idle(client)
        assert stats['requests_total{path="/v1/completions",status="200"}'] == 200


def test_company_changes_no_answer(client) -> None:
    bodies = [
        {"prompt": f"The fever {n}", "max_tokens": 8, "temperature": 0, "logprobs": 1}
        for n in range(12)
    ]
    alone = [client.post(COMPLETE, body)[1]["choices"] for body in bodies]
    with ThreadPoolExecutor(12) as pool:
        together = [r["choices"] for _, r in pool.map(lambda b: client.post(COMPLETE, b), bodies)]
    assert together == alone


def test_a_full_queue_sends_away_and_says_when_to_come_back(start_server, opened) -> None:
    with start_server(opened, max_batch=1, queue=1) as client:
        waiting = [_begin(client, LONG) for _ in range(3)]  # two with the engine, one behind
        while client.get("/health")[1]["waiting"] < 1:
            time.sleep(0.01)
        status, headers, raw = client.send(COMPLETE, LONG)
        assert status == 429
        assert int(headers["retry-after"]) >= 1
        error = json.loads(raw)["error"]
        assert (error["type"], error["code"]) == ("rate_limit_error", "queue_full")
        for connection in waiting:
            connection.close()
        _idle(client)
        assert client.post(COMPLETE, {"prompt": "x", "max_tokens": 1})[0] == 200


def test_more_answers_than_ever_fit_are_a_mistake(start_server, opened) -> None:
    with start_server(opened, max_batch=1, queue=1) as client:
        status, error = client.refused(COMPLETE, {"prompt": ["x"] * 4, "max_tokens": 1})
        assert (status, error["param"]) == (400, "prompt")


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_place(client, stream) -> None:
    before = client.stats()["generated_tokens_total"]
    connection = _begin(client, {**LONG, "n": 64, "stream": stream})
    if stream:
        assert connection.getresponse().read(20)
    else:
        while client.get("/health")[1]["running"] == 0:
            time.sleep(0.005)
    connection.close()
    after = _idle(client)
    assert after["generated_tokens_total"] - before < 64 * 480


def test_an_answer_that_takes_too_long_is_ended(start_server, opened) -> None:
    with start_server(opened, max_batch=1, timeout_seconds=0.15) as client:
        status, headers, raw = client.send(COMPLETE, {**LONG, "n": 4})
        assert status == 504
        assert headers["x-should-retry"] == "false"
        assert json.loads(raw)["error"]["type"] == "timeout_error"
        stats = _idle(client)
        assert stats["timeouts_total"] == 1
        # In a stream that has begun it is the last event.
        raw = client.send(COMPLETE, {**LONG, "n": 4, "stream": True})[2]
        *_, error, done = [line for line in raw.decode().split("\n\n") if line]
        assert json.loads(error.removeprefix("data: "))["error"]["code"] == "timeout"
        assert done == "data: [DONE]"
        _idle(client)


def test_whose_turn_does_not_come_in_time_may_come_again(start_server, opened) -> None:
    with start_server(opened, max_batch=1, timeout_seconds=0.4) as client:
        waiting = [_begin(client, {**LONG, "n": 20}) for _ in range(2)]
        while client.get("/health")[1]["running"] < 2:
            time.sleep(0.005)
        status, headers, raw = client.send(COMPLETE, LONG)
        if status != 503:  # the machine was quick: its turn came
            assert status in {200, 504}
        else:
            assert headers["retry-after"]
            assert json.loads(raw)["error"]["code"] == "timeout_in_queue"
        for connection in waiting:
            connection.close()
        _idle(client)


def test_texts_encoded_side_by_side_are_none_of_each_others_business(opened) -> None:
    # Whether control tokens are looked for in a text is a state of the tokenizer.
    quoting = "a </s> b " * 20
    messages = [{"role": "user", "content": "fever? " * 20}]

    async def go() -> None:
        service = Service(opened, server_metrics(), max_batch=8, queue=9, timeout_seconds=9)

        def plain(tokenizer):
            return plain_ids(tokenizer, quoting)

        def chat(tokenizer):
            return conversation_ids(tokenizer, messages)

        alone = [await service.encode(plain), await service.encode(chat)]
        both = [service.encode(work) for _ in range(300) for work in (plain, chat)]
        assert await asyncio.gather(*both) == alone * 300
        service.close()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        asyncio.run(go())
    finally:
        sys.setswitchinterval(interval)


def test_weighing_and_generating_go_on_beside_each_other(client) -> None:
    stop = threading.Event()
    body = {"prompt": "The fever is (", "options": ["A", "B"]}
    alone = client.post("/v1/choices", body)[1]["choices"]

    def generate() -> int:
        count = 0
        while not stop.is_set():
            assert client.post(COMPLETE, {**LONG, "max_tokens": 50})[0] == 200
            count += 1
        return count

    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(generate) for _ in range(2)]
        beside = [client.post("/v1/choices", body)[1]["choices"] for _ in range(10)]
        stop.set()
        assert all(each.result() for each in running)
    assert beside == [alone] * 10
