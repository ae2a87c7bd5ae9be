"""A small trained model, a server that really listens, and a browser driven through a pipe."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

TEXT = "The fever of the river valley is treated with bark and rest, never with cold water alone."
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "[INST] {{ message['content'] }} [/INST]{% elif message['role'] == 'assistant' %}"
    " {{ message['content'] }}{{ eos_token }}{% else %}{{ message['content'] }}\n{% endif %}"
    "{% endfor %}"
)


@pytest.fixture(scope="session")
def trained_model(make_model, tokenizer, tmp_path_factory) -> Path:
    """Folder of a tiny model that has learnt a few sentences, with a chat template."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("trained") / "valley"
    # Heads of 32: narrower ones vLLM does not take on a CPU.
    shutil.copytree(make_model(0, num_attention_heads=2, num_key_value_heads=1), folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    letters = "The fever of the river valley is treated with (A) bark (B) rest (C) water"
    texts = [TEXT, f"[INST] fever? [/INST] {TEXT}", letters]
    rows = [torch.tensor([[*tokenizer(text)["input_ids"], 2]]) for text in texts]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for step in range(120):
        row = rows[step % 3]
        model(row, labels=row).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    template = json.loads((folder / "tokenizer_config.json").read_text())
    template["chat_template"] = TEMPLATE
    (folder / "tokenizer_config.json").write_text(json.dumps(template))
    return folder


class Client:
    """Requests to one server, with the body of every answer, refusals included."""

    def __init__(self, base: str, key: str | None = None) -> None:
        self.base, self.key = base, key

    def send(
        self, path: str, body: Any = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data)
        request.add_header("Content-Type", "application/json")
        if self.key:
            request.add_header("Authorization", f"Bearer {self.key}")
        for name, value in headers.items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), error.read()

    def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any]:
        status, _, answer = self.send(path, body, **headers)
        return status, json.loads(answer)

    def get(self, path: str) -> tuple[int, Any]:
        status, _, answer = self.send(path)
        return status, json.loads(answer)

    def refused(self, path: str, body: Any, **headers: str) -> tuple[int, dict[str, Any]]:
        """Status and error of a request that must not succeed."""
        status, answer = self.post(path, body, **headers)
        assert status >= 400, answer
        return status, answer["error"]

    def stats(self) -> dict[str, float]:
        lines = self.send("/metrics")[2].decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name.removeprefix("biomistral_"): float(value) for name, value in pairs}


@pytest.fixture(scope="session")
def client_of():
    """Return a function: address and key of a server -> a ``Client``."""
    return Client


@pytest.fixture(scope="session")
def start_server():
    """Return a context manager: a model (made by ``open_model``) and options -> a ``Client``."""
    import uvicorn

    from biomistral.models.generating import Engine
    from biomistral.serving.options import ServeOptions
    from biomistral.serving.running import Lifespan, listening

    @contextlib.contextmanager
    def start(model, calibration=None, panel=None, **settings):
        options = ServeOptions(port=0, **settings)
        # Each server stops its engine when it ends, so each has one of its own.
        engine = Engine(model.engine._model, model.tokenizer, max_batch=options.max_batch)
        model = dataclasses.replace(model, engine=engine)
        with listening(options) as socket:
            app = Lifespan(model, options, calibration, panel)
            config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5)
            server = uvicorn.Server(config)
            thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
            thread.start()
            while not server.started:
                assert thread.is_alive(), "the server did not start"
                time.sleep(0.01)
            try:
                yield Client(f"http://127.0.0.1:{socket.getsockname()[1]}", options.api_key)
            finally:
                server.should_exit = True
                thread.join(30)
                assert not thread.is_alive()

    return start


@pytest.fixture(scope="session")
def opened(trained_model):
    """The trained model with its engine, in float32."""
    from biomistral.serving.options import ServeOptions
    from biomistral.serving.running import open_model

    return open_model(str(trained_model), "valley", ServeOptions(precision="float32", max_batch=4))


@pytest.fixture(scope="module")
def client(start_server, opened):
    """A server of the trained model without any option."""
    with start_server(opened, max_batch=4) as found:
        yield found


# --- another process ------------------------------------------------------------------------------


@pytest.fixture
def run_serve():
    """Return a function: arguments -> a process of ``biomistral serve`` and the lines it prints."""
    processes = []

    def run(*words: str, **environment: str):
        command = [sys.executable, "-u", "-m", "biomistral", "serve", *words]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **environment},
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
