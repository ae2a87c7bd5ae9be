"""Starting and stopping, in a process of its own."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import threading

import pytest

from biomistral.errors import InputError
from biomistral.serving.options import ServeOptions
from biomistral.serving.running import listening, served_name

KEY = "a-key-of-some-length"
BODY = {"prompt": "The fever", "max_tokens": 400, "ignore_eos": True}


def _port(process) -> tuple[int, str]:
    """Port of a server that has started, and what it has printed."""
    printed = ""
    for line in process.stdout:
        printed += line
        if found := re.search(r"listening on http://127.0.0.1:(\d+)/v1", line):
            return int(found[1]), printed
    raise AssertionError(printed)


@pytest.mark.parametrize(("number", "key"), [(signal.SIGTERM, KEY), (signal.SIGINT, "")])
def test_a_signal_lets_running_answers_end(run_serve, trained_model, number, key) -> None:
    environment = {"BIOMISTRAL_API_KEY": key} if key else {}
    process = run_serve(str(trained_model), "--port", "0", **environment)
    port, printed = _port(process)
    assert "valley: " in printed
    assert ("(key needed)" in printed) == bool(key)
    assert KEY not in printed
    assert _status(port, {}) == (401 if key else 200)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    connection.request("POST", "/v1/completions", json.dumps(BODY), headers)
    answers = []
    reading = threading.Thread(target=lambda: answers.append(connection.getresponse().read()))
    reading.start()
    while not _health(port)["running"]:
        pass
    process.send_signal(number)
    reading.join(60)
    assert json.loads(answers[0])["usage"]["completion_tokens"] == 400
    assert process.wait(60) == 0
    assert process.stdout.read().strip().endswith("stopped")
    with pytest.raises(ConnectionRefusedError):
        _health(port)


def _status(port: int, headers: dict[str, str]) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/v1/models", headers=headers)
    return connection.getresponse().status


def _health(port: int) -> dict:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/health")
    return json.loads(connection.getresponse().read())


def test_a_port_that_is_taken_is_refused_by_name() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        options = ServeOptions(port=port)
        with (
            pytest.raises(InputError, match=f"--port {port}: cannot be listened on"),
            listening(options),
        ):
            pass


def test_a_host_that_is_none_is_refused_by_name() -> None:
    options = ServeOptions(host="no-such-host.invalid", api_key="a-key-of-some-length")
    with pytest.raises(InputError, match=r"--host no-such-host\.invalid"), listening(options):
        pass


def test_a_model_is_called_like_its_folder(tiny_model) -> None:
    assert served_name(str(tiny_model)) == tiny_model.name
    assert served_name("owner/name") == "owner/name"
