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
from typing import Any, Generic, Protocol, Self, TypeVar

from biomistral import artifacts
from biomistral.errors import ModelError
from biomistral.models.endpoints.answers import Answers
from biomistral.models.endpoints.client import Client, Refused
from biomistral.models.endpoints.cost import CountTokens, answer_tokens, price, tokens_of
from biomistral.models.endpoints.pace import Pace
from biomistral.recipe.endpoints import EndpointModel


class Reply(Protocol):
    """What is kept of a reply."""

    @property
    def num_prompt_tokens(self) -> int | None:
        """As the server counts them, if it does."""

    @property
    def num_answer_tokens(self) -> int | None:
        """As the server counts them, if it does."""

    def to_json(self) -> Any:
        """Return it as a JSON value."""

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read what ``to_json`` gave."""


Kept = TypeVar("Kept", bound=Reply)


@dataclass(frozen=True)
class Call(Generic[Kept]):
    """One request to be sent."""

    path: str
    body: Mapping[str, Any]
    read: Callable[[Any], Kept]
    key: str
    may_be_refused: Callable[[Refused], bool]


def call(
    settings: EndpointModel,
    path: str,
    body: Mapping[str, Any],
    read: Callable[[Any], Kept],
    may_be_refused: Callable[[Refused], bool] = lambda _: False,
) -> Call[Kept]:
    """Return the request under the key of its answer: the address and all that is sent.

    What ``may_be_refused`` is true of concerns this request alone and does not end the work.
    """
    key = artifacts.digest_of([settings.endpoint + path, dict(body)])
    return Call(path, body, read, key, may_be_refused)


class Asker(Generic[Kept]):
    """Sends calls and keeps their replies, which are of one kind."""

    def __init__(
        self, settings: EndpointModel, answers: Answers, count: CountTokens, kind: type[Kept]
    ) -> None:
        self._settings = settings
        self._kind = kind
        self._answers = answers
        self._count = count
        self._spent = 0.0
        # By key, for this process only: a server that is started anew may take them.
        self.refused: dict[str, Refused] = {}

    def kept(self, key: str) -> Kept | None:
        """The reply, if it is there already."""
        return self._kind.from_json(self._answers[key]) if key in self._answers else None

    def ask(self, calls: Sequence[Call[Kept]]) -> Iterator[Call[Kept]]:
        """Send each call once and yield it when its reply is kept, in the order they come.

        A call that was refused, and may be, is yielded too; it is in ``refused``. Raises ``ModelError`` for the first that fails for good, or when ``max_cost`` is spent; those
        under way are kept first.
        """
        settings = self._settings
        pace = Pace(settings.requests_per_minute, settings.tokens_per_minute)
        client = Client(settings, pace)
        waiting = iter({item.key: item for item in calls}.values())
        running: dict[Future[Kept], Call[Kept]] = {}
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
                        self._settle(running[future], future)
                        yield running.pop(future)
            finally:
                pace.stop()
                self._save(running)

    def _send(self, client: Client, item: Call[Kept]) -> Kept:
        tokens = tokens_of(item.body, self._count) + answer_tokens(item.body, self._settings)
        return client.post(item.path, item.body, item.read, tokens)

    def _settle(self, item: Call[Kept], future: Future[Kept]) -> None:
        try:
            reply = future.result()
        except Refused as error:
            if not item.may_be_refused(error):
                raise
            self.refused[item.key] = error
        else:
            self._keep(item, reply)

    def _keep(self, item: Call[Kept], reply: Kept) -> None:
        self._answers.add(item.key, reply.to_json())
        used = reply.num_prompt_tokens or 0, reply.num_answer_tokens or 0
        self._spent += price(self._settings, *used) or 0.0
        if self._settings.max_cost is not None and self._spent > self._settings.max_cost:
            raise ModelError(
                f"{self._settings.endpoint}: {self._spent:.2f} is spent by the server's own count of "
                f"tokens, above max_cost {self._settings.max_cost:g}; raise it to go on (what is "
                "answered is kept)"
            )

    def _save(self, running: Mapping[Future[Kept], Call[Kept]]) -> None:
        """Keep what was under way when work ended; what failed is asked again another time."""
        for future, item in running.items():
            if item.key not in self._answers and future.exception() is None:
                self._answers.add(item.key, future.result().to_json())
