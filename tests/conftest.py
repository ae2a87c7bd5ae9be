"""Small true things for all tests: a Mistral of two layers, a tokenizer, real data, servers."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from biomistral.recipe.endpoints import EndpointModel

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach a network
# Models of the tests are so small that two threads take longer than one, on a busy machine thrice.
os.environ.setdefault("OMP_NUM_THREADS", "1")

REPOSITORY = Path(__file__).resolve().parent.parent

TEXTS = [
    "The fever of the river valley is treated with bark and rest, never with cold water alone.",
    "La fièvre de la vallée est traitée par l'écorce; el reposo ayuda. A febre passa em três dias.",
    "Das Fieber im Tal wird mit Rinde behandelt. Лихорадку в долине лечат корой.",
    "河谷热用树皮治疗。 تعالج حمى الوادي باللحاء والراحة.",
    "The following are multiple choice questions. (A) bark (B) water (C) rest (D) salt Answer:(A",
]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with real articles and benchmark files; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("BIOMISTRAL_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data not found at {folder}; set BIOMISTRAL_TEST_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def tokenizer():
    from biomistral.models.fresh import train_tokenizer

    return train_tokenizer(TEXTS * 20, vocabulary_size=600)


@pytest.fixture(scope="session")
def make_model(tmp_path_factory, tokenizer):
    """Return a function seed -> folder of a tiny saved model (float32, 2 layers, width 64)."""
    from biomistral.models.fresh import fresh_model
    from biomistral.recipe.settings import Architecture

    root = tmp_path_factory.mktemp("models")
    architecture = Architecture(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
    )

    def make(seed: int = 0, **changes: object) -> Path:
        label = "-".join(f"{key}={value}" for key, value in sorted(changes.items()))
        folder = root / f"model-{seed}-{label}"
        if not folder.exists():
            changed = Architecture(**{**architecture.model_dump(), **changes})
            fresh_model(changed, tokenizer, seed=seed).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_model(make_model) -> Path:
    """Folder of a tiny random model with its tokenizer. Read only."""
    return make_model(0)


@pytest.fixture(scope="session")
def miniature_world(tmp_path_factory) -> Path:
    """Folder of the invented world, as the command line writes it. Read only."""
    from biomistral.miniature import make_miniature

    return make_miniature(tmp_path_factory.mktemp("miniature") / "world")


# --- servers with an OpenAI-compatible endpoint ---

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
        from biomistral.recipe.endpoints import EndpointModel

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
    monkeypatch.setattr("biomistral.models.endpoints.client.FIRST_WAIT_SECONDS", 0.01)
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
