from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from biomistral.recipe.endpoints import EndpointModel

# What a test says to one request: status, headers, and a body (JSON value or text).
Reply = tuple[int, dict[str, str], Any]


@dataclass
class Server:
    """A true HTTP server on this machine; ``answer`` says what it replies to (path, body)."""

    answer: Callable[[str, dict[str, Any]], Reply]
    url: str = ""
    seen: list[tuple[str, dict[str, Any], dict[str, str]]] = field(default_factory=list)
    most_at_once: int = 0

    def settings(self, **changes: Any) -> EndpointModel:
        given = {"retries": 2, "timeout_seconds": 5, "concurrency": 4, "api": "auto", **changes}
        return EndpointModel(endpoint=self.url, model="served", **given)

    @property
    def prompts(self) -> list[str]:
        return [b.get("prompt") or b["messages"][-1]["content"] for _, b, _ in self.seen]


@pytest.fixture
def serve(monkeypatch) -> Iterator[Callable[..., Server]]:
    """Return a function: what to answer -> a running server."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    running: list[ThreadingHTTPServer] = []

    def start(answer: Callable[[str, dict[str, Any]], Reply]) -> Server:
        server = Server(answer)
        lock = threading.Lock()
        at_once = 0

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                nonlocal at_once
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    server.seen.append((self.path, body, dict(self.headers)))
                    at_once += 1
                    server.most_at_once = max(server.most_at_once, at_once)
                status, headers, value = server.answer(self.path, body)
                data = (value if isinstance(value, str) else json.dumps(value)).encode()
                with lock:
                    at_once -= 1
                try:
                    self.send_response(status)
                    for name, text in {**headers, "Content-Length": str(len(data))}.items():
                        self.send_header(name, text)
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:  # the client has gone
                    pass

            def log_message(self, *_: Any) -> None:
                pass

        http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        http.daemon_threads = True
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        running.append(http)
        server.url = f"http://127.0.0.1:{http.server_port}/v1"
        return server

    yield start
    for http in running:
        http.shutdown()
        http.server_close()


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch):
    monkeypatch.setattr("biomistral.evaluation.endpoints.client.FIRST_WAIT_SECONDS", 0.01)


@pytest.fixture
def completions():
    """A server of completions with log-probabilities and echo."""

    def answer(path: str, body: dict[str, Any]) -> Reply:
        if path != "/v1/completions":
            return 404, {}, {"error": {"message": "not here"}}
        if body.get("echo"):
            words = body["prompt"].split(" ")
            texts = [words[0], *(f" {word}" for word in words[1:]), " and"]
            offsets = [sum(map(len, texts[:i])) for i in range(len(texts))]
            values = [None, *(-float(len(text)) for text in texts[1:])]
            listed = {"tokens": texts, "token_logprobs": values, "text_offset": offsets}
            listed["top_logprobs"] = [None, *({"x": -1.0} for _ in texts[1:])]
        else:
            tops = {"A": -0.5, " A": -3.0, "B": -1.5, "the": -4.0}
            listed = {"tokens": ["A"], "token_logprobs": [-0.5], "top_logprobs": [tops]}
        usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": 1}
        return 200, {}, {"choices": [{"text": "A", "logprobs": listed}], "usage": usage}

    return answer


@pytest.fixture
def chat():
    """Return a function: text (and tokens with what is listed) -> a server of chats only."""

    def of(text: str, tokens: list[tuple[str, dict[str, float]]] | None = None):
        def answer(path: str, body: dict[str, Any]) -> Reply:
            if path != "/v1/chat/completions":
                return 404, {}, {"error": {"message": "this model is for chats"}}
            choice: dict[str, Any] = {"message": {"role": "assistant", "content": text}}
            if tokens and body.get("logprobs"):
                choice["logprobs"] = {
                    "content": [
                        {
                            "token": token,
                            "logprob": max(tops.values()),
                            "top_logprobs": [{"token": t, "logprob": v} for t, v in tops.items()],
                        }
                        for token, tops in tokens
                    ]
                }
            return 200, {}, {"choices": [choice], "usage": {"prompt_tokens": 7}}

        return answer

    return of


@pytest.fixture
def slowly():
    """Return a function: a server that takes so many seconds for each answer."""

    def of(answer, seconds: float):
        def later(path, body):
            time.sleep(seconds)
            return answer(path, body)

        return later

    return of
