"""Limits, key and headers, over HTTP."""

from __future__ import annotations

import socket

import pytest

from biomistral.advisory import ADVISORY
from biomistral.serving import guard

KEY = "a-key-of-some-length"
COMPLETE = "/v1/completions"
BODY = {"prompt": "The fever", "max_tokens": 1}


@pytest.fixture(scope="module")
def locked(start_server, opened):
    with start_server(opened, max_batch=4, api_key=KEY, ui=True, max_body_bytes=2000) as found:
        yield found


def _raw(client, text: bytes) -> bytes:
    """Answer to bytes sent as they are."""
    host, port = client.base.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(text)
        found = b""
        while part := connection.recv(65536):
            found += part
            if b"\r\n\r\n" in found:
                return found
        return found


def test_the_right_key_opens(locked) -> None:
    assert locked.post(COMPLETE, BODY)[0] == 200
    assert locked.post(COMPLETE, BODY, Authorization=f"bearer {KEY}")[0] == 200


@pytest.mark.parametrize("header", ["", "Bearer wrong", "Bearer", KEY, f"Basic {KEY}", "Bearer é"])
@pytest.mark.parametrize("path", [COMPLETE, "/v1/choices", "/v1/chat/completions", "/nowhere"])
def test_a_wrong_key_opens_nothing(locked, header, path) -> None:
    status, error = locked.refused(path, BODY, Authorization=header)
    assert (status, error["code"]) == (401, "invalid_api_key")
    assert KEY not in error["message"]


@pytest.mark.parametrize(
    ("path", "status"),
    [("/health", 200), ("/", 200), ("/page/main.js", 200), ("/metrics", 401), ("/v1/models", 401)],
)
def test_health_and_page_need_no_key(locked, path, status) -> None:
    assert locked.send(path, Authorization="")[0] == status


def test_every_answer_has_the_advisory_and_forbids_what_is_not_needed(locked) -> None:
    for path in ("/", "/health", "/v1/models", "/nowhere"):
        headers = locked.send(path)[1]
        assert headers["x-advisory"] == ADVISORY
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'self'" in headers["content-security-policy"]
    assert locked.send("/v1/models", Authorization="")[1]["x-advisory"] == ADVISORY


def test_a_body_that_is_too_large_is_refused(locked) -> None:
    status, error = locked.refused(COMPLETE, {"prompt": "x" * 3000})
    assert (status, error["code"]) == (413, "body_too_large")
    assert "2,000 bytes" in error["message"]


def test_a_body_that_says_to_be_too_large_is_not_waited_for(locked, monkeypatch) -> None:
    monkeypatch.setattr(guard, "_SECONDS_FOR_A_PART", 0.1)
    head = (
        f"POST {COMPLETE} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
        "Content-Length: 3000\r\n\r\n{"
    )
    assert _raw(locked, head.encode()).startswith(b"HTTP/1.1 413 ")


def test_a_large_body_that_does_not_say_its_length_is_refused(locked) -> None:
    part = b"400\r\n" + b"x" * 0x400 + b"\r\n"
    head = (
        f"POST {COMPLETE} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    assert _raw(locked, head.encode() + 4 * part).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_never_comes_is_not_waited_for(client, monkeypatch) -> None:
    monkeypatch.setattr(guard, "_SECONDS_FOR_A_PART", 0.1)
    head = f"POST {COMPLETE} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{{"
    assert _raw(client, head.encode()).startswith(b"HTTP/1.1 408 ")


def test_without_a_key_only_this_machine_is_answered(client) -> None:
    for host in ("localhost", "127.0.0.1:99", "[::1]:8000"):
        assert client.send("/health", Host=host)[0] == 200
    for host in ("evil.example", "127.0.0.1.evil.example", "[::2]:80", "localhost.evil.example:1"):
        status, error = client.refused("/v1/models", None, Host=host)
        assert (status, error["code"]) == (403, "wrong_host")


def test_unknown_addresses_do_not_become_labels(client) -> None:
    client.send("/made/up/by/a/client")
    names = [name for name in client.stats() if name.startswith("requests_total")]
    assert not any("made" in name for name in names)
    assert any('path="other"' in name for name in names)
