"""Serving: tokens per second with many clients and with one, and a load run that may lose nothing.

    python benchmarks/bench_serve.py                     a fresh model of 0.3 billion parameters
    python benchmarks/bench_serve.py --model FOLDER      any other
    python benchmarks/bench_serve.py --small             a try, in a minute

The server is a process of its own (``biomistral serve``) and is spoken to over loopback by as many
threads as there are clients. Speed is counted per second of the server's processor time, which other
programs on the machine disturb less than the clock; wall seconds stand beside it. Rounds with one
and with many clients alternate, and the best of each counts. Prints Markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

WORDS = [
    "the",
    "fever",
    "of",
    "a",
    "river",
    "valley",
    "is",
    "treated",
    "with",
    "bark",
    "and",
    "rest",
    "and",
    "never",
    "with",
    "cold",
    "water",
]
LARGE = {"hidden_size": 1024, "intermediate_size": 3584, "num_hidden_layers": 18}
SMALL = {"hidden_size": 256, "intermediate_size": 896, "num_hidden_layers": 4}


def make_model(folder: Path, shape: dict[str, int]) -> Path:
    from biomistral.models.fresh import save_fresh_model
    from biomistral.recipe.settings import Architecture

    heads = shape["hidden_size"] // 64
    architecture = Architecture(
        **shape,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 4),
        max_position_embeddings=2048,
    )
    save_fresh_model(architecture, [" ".join(WORDS)] * 9, 400, folder, seed=1)
    return folder


@dataclass
class Server:
    """A server under way."""

    port: int
    process: subprocess.Popen[str]

    def processor_seconds(self) -> float:
        """What it has used since it started."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def numbers(self) -> dict[str, float]:
        """Its metrics by name."""
        lines = self.request("GET", "/metrics")[1].decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line[0] != "#")
        return {name.removeprefix("biomistral_"): float(value) for name, value in pairs}

    def request(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        """Status and body of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=900)
        data = None if body is None else json.dumps(body)
        with contextlib.closing(connection):
            connection.request(method, path, data, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()


@contextlib.contextmanager
def serve(model: Path, max_batch: int) -> Iterator[Server]:
    words = [sys.executable, "-u", "-m", "biomistral", "serve", str(model), "--port", "0"]
    words += ["--max-batch", str(max_batch), "--queue", "1000", "--timeout", "3600"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        for line in process.stdout:
            if found := re.search(r"listening on http://127.0.0.1:(\d+)", line):
                yield Server(int(found[1]), process)
                return
        raise SystemExit("the server did not start")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(120)


def complete(server: Server, number: int, tokens: int, prompt_words: int) -> tuple[int, int]:
    """Status and tokens of one answer; prompts differ from their first word on."""
    words = [
        WORDS[(number * 7 + place * (1 + number % 5)) % len(WORDS)] for place in range(prompt_words)
    ]
    body = {
        "prompt": f"{number} " + " ".join(words),
        "max_tokens": tokens,
        "ignore_eos": True,
        "temperature": 0,
    }
    status, answer = server.request("POST", "/v1/completions", body)
    return status, json.loads(answer)["usage"]["completion_tokens"] if status == 200 else 0


def measure(server: Server, clients: int, answers: int, tokens: int) -> tuple[float, float]:
    """Tokens per second of the server's processor time, and of the clock."""
    before, begun = server.processor_seconds(), time.monotonic()
    with ThreadPoolExecutor(clients) as pool:
        replies = list(pool.map(lambda n: complete(server, n, tokens, 12), range(answers)))
    assert all(status == 200 for status, _ in replies), Counter(s for s, _ in replies)
    total = sum(count for _, count in replies)
    used, took = server.processor_seconds() - before, time.monotonic() - begun
    return total / used, total / took


def load(server: Server, requests: int, at_once: int) -> dict[str, float]:
    """Send many short requests, with a few clients that leave in the middle; count what is lost."""
    statuses: Counter[int] = Counter()
    wrong = 0
    lock = threading.Lock()

    def one(number: int) -> None:
        nonlocal wrong
        if number % 20 == 19:
            leave(server, number)
            return
        wanted = 1 + number % 8
        status, count = complete(server, number, wanted, 6)
        with lock:
            statuses[status] += 1
            wrong += status == 200 and count != wanted

    begun = time.monotonic()
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(one, range(requests)))
    took = time.monotonic() - begun
    deadline = time.monotonic() + 60
    while (now := server.numbers())["jobs_running"] + now["sequences_running"] > 0:
        assert time.monotonic() < deadline, "places were not freed"
        time.sleep(0.1)
    return {
        "sent": requests,
        "left on purpose": requests // 20,
        "answered": statuses[200],
        "refused or lost": sum(statuses.values()) - statuses[200],
        "wrong length": wrong,
        "seconds": took,
    }


def leave(server: Server, number: int) -> None:
    """Ask for a long answer in a stream and go away after its first part."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=900)
    body = {"prompt": f"leaving {number}", "max_tokens": 500, "stream": True, "ignore_eos": True}
    with contextlib.closing(connection):
        connection.request(
            "POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"}
        )
        connection.getresponse().read(10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=400, help="of the load run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        shape = SMALL if arguments.small else LARGE
        model = arguments.model or make_model(Path(scratch) / "model", shape)
        with serve(model, arguments.clients) as server:
            report(server, arguments)
        if arguments.model is None:  # requests are what is counted here, not tokens
            model = make_model(Path(scratch) / "tiny", SMALL)
        with serve(model, arguments.clients) as server:
            print("\n| load run, 200 at once | |\n|---|---|")
            for name, value in load(server, arguments.requests, 200).items():
                print(
                    f"| {name} | {value:g} |" if name != "seconds" else f"| {name} | {value:.1f} |"
                )


def report(server: Server, arguments: argparse.Namespace) -> None:
    card = json.loads(server.request("GET", "/v1/models")[1])["data"][0]
    print(
        f"{card['parameters'] / 1e6:,.0f} million parameters, {card['precision']}, {card['device']}"
    )
    measure(server, 1, 1, 4)  # what is compiled or loaded at first is
    one, many = [], []
    for _ in range(arguments.rounds):
        one.append(measure(server, 1, 2, arguments.tokens))
        many.append(measure(server, arguments.clients, 2 * arguments.clients, arguments.tokens))
    best_one, best_many = max(one), max(many)
    print("\n| clients | tokens per processor second | tokens per wall second | all rounds |")
    print("|---|---|---|---|")
    for clients, best, rounds in ((1, best_one, one), (arguments.clients, best_many, many)):
        shown = ", ".join(f"{speed:.1f}" for speed, _ in rounds)
        print(f"| {clients} | {best[0]:.1f} | {best[1]:.1f} | {shown} |")
    print(
        f"\n{arguments.clients} clients against 1: {best_many[0] / best_one[0]:.2f} times the tokens "
        f"per processor second, {best_many[1] / best_one[1]:.2f} times by the clock"
    )


if __name__ == "__main__":
    main()
