from __future__ import annotations

import hashlib
import http.server
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from biomistral.corpus.polite import Client, FetchError, Limiter, md5_of
from biomistral.errors import InputError

Answers = list[Callable[[http.server.BaseHTTPRequestHandler], None]]


@pytest.fixture
def serve() -> Iterator[Callable[[Answers], Client]]:
    """Return a function that starts a server on this machine giving these answers in turn."""
    servers = []

    def start(answers: Answers) -> Client:
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                asked.append(self.path)
                answers[min(len(asked), len(answers)) - 1](self)

            def log_message(self, *_: object) -> None:
                pass

        asked: list[str] = []
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        client = Client(
            f"http://127.0.0.1:{server.server_port}", Limiter(10_000), 4, backoff_seconds=0.01
        )
        client.asked = asked  # type: ignore[attr-defined]
        return client

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def answer(status: int = 200, body: bytes = b"bark", **headers: str):
    def give(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", headers.pop("length", str(len(body))))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return give


def drop(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    handler.connection.close()


def short(handler: http.server.BaseHTTPRequestHandler) -> None:
    """Announce more than is sent."""
    handler.send_response(200)
    handler.send_header("Content-Length", "4000")
    handler.end_headers()
    handler.wfile.write(b"bark")
    handler.close_connection = True


def cut(handler: http.server.BaseHTTPRequestHandler) -> None:
    """Announce less than is meant: a body that looks whole and is not."""
    handler.send_response(200)
    handler.send_header("Content-Length", "2")
    handler.send_header("ETag", f'"{hashlib.md5(b"bark").hexdigest()}"')
    handler.end_headers()
    handler.wfile.write(b"ba")


@pytest.mark.parametrize(
    "first",
    [
        drop, short, cut, answer(503), answer(500), answer(429, Retry_After="0"),
        answer(body=b"barf", ETag=f'"{hashlib.md5(b"bark").hexdigest()}"'),
    ],
    ids=["dropped", "short", "cut", "503", "500", "429", "other bytes"],
)  # fmt: skip
def test_what_goes_wrong_once_is_tried_again(serve, first) -> None:
    client = serve([first, answer()])
    assert client.get("/a") == b"bark"
    assert client.asked == ["/a", "/a"]


def test_what_goes_wrong_always_is_an_error_with_the_last_reason(serve) -> None:
    client = serve([answer(503)])
    with pytest.raises(FetchError, match=r"/a: the server answers 503 \(4 attempts\)"):
        client.get("/a")
    assert len(client.asked) == 4


def test_retry_after_is_waited_for(serve) -> None:
    client = serve([answer(503, Retry_After="1"), answer()])
    start = time.monotonic()
    assert client.get("/a") == b"bark"
    assert time.monotonic() - start >= 1  # a law, not a timing: no request comes sooner


def test_a_date_to_wait_for_that_is_past_or_nonsense_is_no_wait(serve) -> None:
    for value in ("Wed, 21 Oct 2015 07:28:00 GMT", "soon"):
        assert serve([answer(503, Retry_After=value), answer()]).get("/a") == b"bark"


def test_nothing_there_is_none_and_forbidden_is_an_error_at_once(serve) -> None:
    assert serve([answer(404)]).get("/a") is None
    client = serve([answer(403)])
    with pytest.raises(FetchError, match="answers 403"):
        client.get("/a")
    assert len(client.asked) == 1
    with pytest.raises(FetchError, match="answers 302"):  # redirections are not followed
        serve([answer(302, Location="http://127.0.0.1:1/")]).get("/a")


def test_a_body_of_another_md5_is_never_returned(serve) -> None:
    with pytest.raises(FetchError, match="the MD5 is"):
        serve([answer()]).get("/a", md5="0" * 32)
    assert serve([answer()]).get("/a", md5=hashlib.md5(b"bark").hexdigest()) == b"bark"


def test_a_server_that_is_not_there_is_an_error() -> None:
    client = Client("http://127.0.0.1:9", Limiter(1000), 2, backoff_seconds=0.01)
    with pytest.raises(FetchError, match="refused"):
        client.get("/a")


def test_an_etag_of_parts_is_no_md5() -> None:
    assert md5_of("D41D8CD98F00B204E9800998ECF8427E") == "d41d8cd98f00b204e9800998ecf8427e"
    assert md5_of("d41d8cd98f00b204e9800998ecf8427e-2") is None
    assert md5_of("") is None


@pytest.mark.parametrize("url", ["", "pmc", "file:///etc", "ftp://example.org"])
def test_an_address_that_is_none_is_named(url: str) -> None:
    with pytest.raises(InputError, match="is no address; write it like"):
        Client(url, Limiter(1))


def test_no_more_requests_a_second_than_allowed() -> None:
    limiter = Limiter(100)
    start = time.monotonic()
    threads = [threading.Thread(target=limiter.wait) for _ in range(21)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - start >= 0.2
