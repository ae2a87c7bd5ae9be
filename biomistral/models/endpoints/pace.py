"""When the next request may be sent: bounds per minute, and pauses that a server asks for.

Requests are spread evenly, so that no minute holds more than is allowed. Knows nothing about HTTP.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Stopped(Exception):  # noqa: N818
    """Work was stopped by another thread while this one waited."""


class Pace:
    """Shared by all threads that ask one server."""

    def __init__(
        self,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_request_seconds = 60 / requests_per_minute if requests_per_minute else 0.0
        self._per_token_seconds = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._clock = clock
        self._lock = threading.Lock()
        self._next_request = self._next_token = self._held_until = clock()
        self._stopped = threading.Event()

    def reserve(self, num_tokens: int) -> float:
        """Take the next place in line; return after how many seconds it may be sent."""
        with self._lock:
            now = self._clock()
            start = max(now, self._next_request, self._next_token, self._held_until)
            self._next_request = start + self._per_request_seconds
            self._next_token = start + num_tokens * self._per_token_seconds
            return start - now

    def wait(self, num_tokens: int) -> None:
        """Wait for the next place in line; raises ``Stopped`` if work is stopped meanwhile."""
        self.sleep(self.reserve(num_tokens))
        while (left := self._held_until - self._clock()) > 0:  # a pause asked for meanwhile
            self.sleep(left)

    def sleep(self, seconds: float) -> None:
        """Sleep; raises ``Stopped`` if work is stopped meanwhile."""
        if self._stopped.wait(max(0.0, seconds)):
            raise Stopped

    def hold(self, seconds: float) -> None:
        """Let nobody send anything for so long: the server said that it has too much to do."""
        with self._lock:
            self._held_until = max(self._held_until, self._clock() + seconds)

    def stop(self) -> None:
        """Wake all who wait, and let nobody send any more."""
        self._stopped.set()
