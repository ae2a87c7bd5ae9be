"""The addresses of the server, and the form of every refusal."""

from __future__ import annotations

import pytest

from biomistral.advisory import ADVISORY
from biomistral.models.generating import Engine

COMPLETE = "/v1/completions"


def test_the_listing_has_the_model_and_the_advisory(client) -> None:
    status, listing = client.get("/v1/models")
    assert status == 200
    assert listing["advisory"] == ADVISORY
    (card,) = listing["data"]
    assert card["id"] == "valley"
    assert card["advisory"] == ADVISORY
    assert card["max_model_len"] == 512
    assert client.get("/v1/models/valley")[1] == card
    assert client.get("/v1/models/other")[0] == 404


def test_health_says_what_is_going_on(client) -> None:
    status, health = client.get("/health")
    assert (status, health["status"], health["running"], health["waiting"]) == (200, "ok", 0, 0)


def test_numbers_count_requests_and_tokens(client) -> None:
    before = client.stats()
    client.post(COMPLETE, {"prompt": "The fever", "max_tokens": 7, "ignore_eos": True})
    after = client.stats()

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0)

    assert grown("generated_tokens_total") == 7
    assert grown('requests_total{path="/v1/completions",status="200"}') == 1
    assert grown('request_seconds_count{path="/v1/completions"}') == 1
    assert grown("first_token_seconds_count") == 1
    assert after["jobs_running"] == after["jobs_waiting"] == 0


@pytest.mark.parametrize(
    ("body", "words", "code"),
    [
        (b"{", "the body is no JSON", "malformed_json"),
        (b'{"prompt": "x"', "the body is no JSON", "malformed_json"),
        (b"\xff\xfe", "the body is no JSON", "malformed_json"),
        (b"[]", "the body is no JSON object", None),
        (b"", "is missing", None),
        (b"{}", "prompt: is missing", "missing_parameter"),
        (b'{"prompt": 5}', "prompt: wanted is a text", None),
        (b'{"prompt": "x", "temprature": 1}', "temprature: is not known here", "unknown_parameter"),
        (b'{"prompt": "x", "temperature": "hot"}', "temperature: ", None),
        (b'{"prompt": "x", "n": 1e9}', "n: ", None),
        (b"[" * 100_000, "nested too deeply", "malformed_json"),
        (b'{"prompt": "x", "n": ' + b"9" * 5000 + b"}", "too many digits", "malformed_json"),
        (b'{"prompt": "x", "max_tokens": 1e400}', "max_tokens: ", None),
        (b'{"prompt": "\\ud800", "max_tokens": 1}', "", None),
    ],
)
def test_a_body_that_makes_no_sense_is_refused_in_openais_form(client, body, words, code) -> None:
    status, error = client.refused(COMPLETE, body)
    assert status == 400
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert words in error["message"]
    if code:
        assert error["code"] == code


def test_a_message_with_an_image_is_refused_by_its_place(client) -> None:
    content = [{"type": "image_url", "image_url": {"url": "x"}}]
    chat = {"messages": [{"role": "user", "content": content}]}
    status, error = client.refused("/v1/chat/completions", chat)
    assert (status, error["param"]) == (400, "messages.0.content")
    assert "images, sound and files are not taken" in error["message"]


def test_unknown_addresses_and_methods_have_openais_form(client) -> None:
    status, error = client.refused("/v1/nothing", {})
    assert (status, error["type"]) == (404, "not_found_error")
    status, answer = client.get(COMPLETE)
    assert status == 405
    assert "allowed is POST" in answer["error"]["message"]


def test_a_form_post_of_another_site_is_no_request(client) -> None:
    # What a browser sends across sites without asking first is never application/json.
    status, _ = client.refused(COMPLETE, b'{"prompt": "x"}', **{"Content-Type": "text/plain"})
    assert status == 400


def test_a_bug_is_an_error_that_tells_nothing_of_the_inside(client, opened, monkeypatch) -> None:
    def fail(*_):
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(Engine, "submit", fail)
    status, error = client.refused(COMPLETE, {"prompt": "x"})
    assert (status, error["type"]) == (500, "server_error")
    assert "secret" not in str(error)
    status, error = client.refused(COMPLETE, {"prompt": "x", "stream": True})
    assert status == 500
