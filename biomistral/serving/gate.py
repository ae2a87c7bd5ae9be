"""Who is answered, who waits, and who is sent away.

At most ``running`` jobs are with the engine (a few more than it takes at once, so that it never
idles), at most ``queue`` others wait for their turn, first come first served, and what is more than
that is refused at once with the time after which to come back. One event loop uses it. Knows nothing
about what jobs are.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Iterator

from biomistral.serving.failures import bad_value, too_busy

_LONGEST_RETRY_AFTER_SECONDS = 60
_WEIGHT_OF_LAST = 0.1  # of the newest job in the mean duration


class Gate:
    """Counts jobs; see the module."""

    def __init__(self, running: int, queue: int) -> None:
        self.limit = running
        self.queue = queue
        self.admitted = 0
        self.running = 0
        self._slots = asyncio.Semaphore(running)
        self._mean_seconds = 1.0

    @property
    def waiting(self) -> int:
        """Jobs that were admitted and have not begun."""
        return max(0, self.admitted - self.running)

    @contextlib.contextmanager
    def admit(self, count: int) -> Iterator[None]:
        """Let ``count`` jobs in, or raise ``Failure``: 429 if they are too many now, 400 if ever."""
        room = self.limit + self.queue
        if count > room:
            raise bad_value(
                f"the request asks for {count} answers, and the server takes at most {room} at a "
                "time; send several requests",
                param="prompt",
            )
        if self.admitted + count > room:
            raise too_busy(self.waiting, self.queue, self.retry_after_seconds())
        self.admitted += count
        try:
            yield
        finally:
            self.admitted -= count

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a turn, and keep it until the block ends."""
        async with self._slots:
            self.running += 1
            begun = time.monotonic()
            try:
                yield
            finally:
                self.running -= 1
                took = time.monotonic() - begun
                self._mean_seconds += _WEIGHT_OF_LAST * (took - self._mean_seconds)

    def retry_after_seconds(self) -> int:
        """When half of those who wait now should have had their turn."""
        expected = self._mean_seconds * (self.waiting / 2 + 1) / self.limit
        return max(1, min(_LONGEST_RETRY_AFTER_SECONDS, math.ceil(expected)))
