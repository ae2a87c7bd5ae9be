"""Many requests to one server at a time, each asked once and kept as it comes.

Threads wait for the server; everything else, the file of kept replies too, is done by the thread that
called. When one fails for good, or the person interrupts, no more are sent, those under way are waited
for and kept, for they are paid for. Knows nothing about what is asked.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from biomistral import artifacts
from biomistral.errors import ModelError
from biomistral.evaluation.endpoints.answers import Answers
from biomistral.evaluation.endpoints.client import Client
from biomistral.evaluation.endpoints.cost import CountTokens, answer_tokens, price, tokens_of
from biomistral.evaluation.endpoints.pace import Pace
from biomistral.evaluation.endpoints.replies import Reply, reply_from_json
from biomistral.recipe.endpoints import EndpointModel


@dataclass(frozen=True)
class Call:
    """One request to be sent."""

    path: str
    body: Mapping[str, Any]
    read: Callable[[Any], Reply]
    key: str


def call(
    settings: EndpointModel, path: str, body: Mapping[str, Any], read: Callable[[Any], Reply]
) -> Call:
    """Return the request under the key of its answer: the address and all that is sent."""
    return Call(path, body, read, artifacts.digest_of([settings.endpoint + path, dict(body)]))


class Asker:
    """Sends calls and keeps their replies."""

    def __init__(self, settings: EndpointModel, answers: Answers, count: CountTokens) -> None:
        self._settings = settings
        self._answers = answers
        self._count = count
        self._spent = 0.0

    def kept(self, key: str) -> Reply | None:
        """The reply, if it is there already."""
        return reply_from_json(self._answers[key]) if key in self._answers else None

    def ask(self, calls: Sequence[Call]) -> Iterator[Call]:
        """Send each call once and yield it when its reply is kept, in the order they come.

        Raises ``ModelError`` for the first that fails for good, or when ``max_cost`` is spent; those
        under way are kept first.
        """
        settings = self._settings
        pace = Pace(settings.requests_per_minute, settings.tokens_per_minute)
        client = Client(settings, pace)
        waiting = iter({item.key: item for item in calls}.values())
        running: dict[Future[Reply], Call] = {}
        with ThreadPoolExecutor(settings.concurrency) as pool:
            try:
                while True:
                    # No more than can be under way: whoever stops has nothing to take back.
                    for item in itertools.islice(waiting, settings.concurrency - len(running)):
                        running[pool.submit(self._send, client, item)] = item
                    if not running:
                        return
                    finished, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in finished:
                        self._keep(running[future], future.result())
                        yield running.pop(future)
            finally:
                pace.stop()
                self._save(running)

    def _send(self, client: Client, item: Call) -> Reply:
        tokens = tokens_of(item.body, self._count) + answer_tokens(item.body, self._settings)
        return client.post(item.path, item.body, item.read, tokens)

    def _keep(self, item: Call, reply: Reply) -> None:
        self._answers.add(item.key, reply.to_json())
        used = reply.num_prompt_tokens or 0, reply.num_answer_tokens or 0
        self._spent += price(self._settings, *used) or 0.0
        if self._settings.max_cost is not None and self._spent > self._settings.max_cost:
            raise ModelError(
                f"{self._settings.endpoint}: {self._spent:.2f} is spent by the server's own count of "
                f"tokens, above max_cost {self._settings.max_cost:g}; raise it to go on (what is "
                "answered is kept)"
            )

    def _save(self, running: Mapping[Future[Reply], Call]) -> None:
        """Keep what was under way when work ended; what failed is asked again another time."""
        for future, item in running.items():
            if item.key not in self._answers and future.exception() is None:
                self._answers.add(item.key, future.result().to_json())
