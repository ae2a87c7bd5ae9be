"""Small true things for all tests: a Mistral of two layers, a tokenizer, real data, servers, a browser."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
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


@pytest.fixture
def threads():
    """Set the number of PyTorch's threads; afterwards it is what it was."""
    import torch

    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


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


# --- a browser ------------------------------------------------------------------------------------


SWITCHES = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


class Browser:
    """Headless Chromium, spoken to in its own protocol over a pipe (no driver, no port)."""

    def __init__(self, program: str) -> None:
        self._folder = tempfile.mkdtemp(prefix="browser-")
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        words = [program, f"--user-data-dir={self._folder}", "--remote-debugging-pipe", *SWITCHES]
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec 3<&{to_browser} 4>&{from_browser}; exec "$@"', "-", *words],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._rest = b""
        self._number = 0
        self._session: str | None = None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self.complaints: list[str] = []  # of the page's console
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            found = self._receive()
            if found.get("id") == self._number:
                assert "error" not in found, found
                return found["result"]
            self._note(found)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._read, 1 << 20)
            assert part, "the browser has gone"
            self._rest += part
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        if event.get("method") == "Log.entryAdded":
            entry = event["params"]["entry"]
            if entry["level"] == "error":
                self.complaints.append(f"{entry['text']} {entry.get('url', '')}")
        if event.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(str(event["params"]["exceptionDetails"]))

    def open(
        self, address: str, width: int = 1200, height: int = 900, *, dark: bool = False
    ) -> None:
        self.complaints.clear()
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send("Page.navigate", url="about:blank")
        self.send("Page.navigate", url=address)

    def run(self, code: str) -> Any:
        """Value of an expression in the page; a promise is waited for."""
        found = self.send(
            "Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, code: str, seconds: float = 60) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        # The page may not be there yet: then a place in it is null.
        while not self.run(f"(() => {{ try {{ return !!({code}) }} catch {{}} }})()"):
            assert time.monotonic() < end, f"never came true: {code}\n{self.complaints}"
            time.sleep(0.05)

    def type(self, text: str) -> None:
        self.send("Input.insertText", text=text)

    def press(self, key: str) -> None:
        codes = {"Enter": 13, "Tab": 9, "Escape": 27, "ArrowRight": 39, "ArrowLeft": 37}
        text = {"text": "\r"} if key == "Enter" else {}
        common = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
        self.send("Input.dispatchKeyEvent", type="keyDown", **common, **text)
        self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    def shoot(self, path: Path) -> None:
        image = self.send("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(image))

    def close(self) -> None:
        os.close(self._write)
        os.close(self._read)
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium; skips where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(names)} is installed")
    found = Browser(program)
    yield found
    found.close()
