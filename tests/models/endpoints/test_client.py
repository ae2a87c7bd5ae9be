from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from biomistral.errors import ModelError
from biomistral.models.endpoints import client
from biomistral.models.endpoints.client import Client, Refused, backoff_seconds, retry_after
from biomistral.models.endpoints.pace import Pace

GOOD = 200, {}, {"answer": 42}


def _read(data):
    return data["answer"]


def _ask(server, environment=None, **changes):
    settings = server.settings(**changes)
    return Client(settings, Pace(), environment or {}).post("/x", {"q": 1}, _read, 1)


def _in_turn(*replies):
    waiting = iter(replies)
    return lambda path, body: next(waiting)


@pytest.mark.parametrize(
    "bad",
    [
        (429, {"Retry-After": "0"}, "slow down"),
        (500, {}, "oops"),
        (503, {}, ""),
        (200, {}, "no JSON at all"),
        (200, {}, '{"answer": 4'),
        (200, {}, {"other": 1}),
        (200, {}, [1]),
    ],
)
def test_what_may_go_away_is_tried_again(serve, bad) -> None:
    server = serve(_in_turn(bad, bad, GOOD))
    assert _ask(server) == 42
    assert len(server.seen) == 3


def test_all_attempts_failed_is_an_error_that_says_with_what(serve) -> None:
    server = serve(lambda path, body: (503, {}, "overloaded"))
    with pytest.raises(ModelError, match=r"no answer in 3 attempts.*status 503: overloaded"):
        _ask(server)
    assert len(server.seen) == 3


def test_nonsense_is_shown_in_the_error(serve) -> None:
    server = serve(lambda path, body: (200, {}, "<html>welcome</html>"))
    with pytest.raises(ModelError, match=r"not what the API says.*<html>welcome"):
        _ask(server)


def test_a_timeout_is_an_error_with_its_length(serve, slowly) -> None:
    server = serve(slowly(lambda path, body: GOOD, 0.5))
    with pytest.raises(ModelError, match=r"timeout after 0\.1 seconds"):
        _ask(server, timeout_seconds=0.1, retries=1)


def test_nobody_there_is_an_error(serve) -> None:
    server = serve(lambda path, body: GOOD)
    server.url = "http://127.0.0.1:9/v1"
    with pytest.raises(ModelError, match="no answer in 3 attempts"):
        _ask(server)


@pytest.mark.parametrize("status", [400, 404, 422, 501, 505])
def test_what_is_final_is_not_tried_again(serve, status) -> None:
    server = serve(lambda path, body: (status, {}, {"error": "unknown model"}))
    with pytest.raises(Refused, match=f"status {status}: .*unknown model"):
        _ask(server)
    assert len(server.seen) == 1


def test_an_empty_account_is_final_though_its_status_is_that_of_haste(serve) -> None:
    server = serve(lambda path, body: (429, {}, {"error": {"code": "insufficient_quota"}}))
    with pytest.raises(Refused, match="insufficient_quota"):
        _ask(server)


def test_the_key_is_sent_in_a_header_and_never_shown(serve) -> None:
    environment = {"MY_KEY": "secret-123"}
    server = serve(lambda path, body: (401, {}, "wrong key: secret-123"))
    with pytest.raises(Refused, match=r"\*\*\*.*MY_KEY is refused") as caught:
        _ask(server, environment, key_variable="MY_KEY")
    assert server.seen[0][2]["Authorization"] == "Bearer secret-123"
    assert "secret-123" not in str(caught.value)


def test_without_a_key_none_is_sent_and_the_error_names_the_variable(serve) -> None:
    server = serve(lambda path, body: (401, {}, "no key"))
    with pytest.raises(Refused, match="MY_KEY is not set"):
        _ask(server, key_variable="MY_KEY")
    assert "Authorization" not in server.seen[0][2]


def test_the_key_follows_no_redirection(serve) -> None:
    other = serve(lambda path, body: GOOD)
    server = serve(lambda path, body: (302, {"Location": f"{other.url}/x"}, ""))
    with pytest.raises(Refused, match="redirects"):
        _ask(server, {"OPENAI_API_KEY": "secret"})
    assert not other.seen


def test_waits_double_up_to_a_bound_and_are_drawn() -> None:
    first = client.FIRST_WAIT_SECONDS
    for attempt in (0, 1, 4):
        drawn = {backoff_seconds(attempt) for _ in range(20)}
        assert len(drawn) > 1
        assert all(first * 2**attempt / 2 <= wait <= first * 2**attempt for wait in drawn)
    assert backoff_seconds(100) <= client.LONGEST_WAIT_SECONDS


def test_retry_after_is_read_as_seconds_or_as_a_date() -> None:
    now = time.time()
    assert retry_after("3") == 3
    assert retry_after(formatdate(now + 20, usegmt=True), now) == pytest.approx(20, abs=1)
    assert retry_after("-5") == 0
    assert retry_after("1e9") == client.LONGEST_RETRY_AFTER_SECONDS
    for nonsense in (None, "", "soon", "nan"):
        assert retry_after(nonsense) is None


def test_retry_after_is_waited_for(serve) -> None:
    server = serve(_in_turn((429, {"Retry-After": "0.2"}, ""), GOOD))
    pace = Pace()
    held = []
    pace.hold = held.append  # type: ignore[method-assign]
    assert Client(server.settings(), pace, {}).post("/x", {}, _read, 1) == 42
    assert held == [0.2]
