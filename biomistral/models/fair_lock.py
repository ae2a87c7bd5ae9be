"""A lock that is given to those who want it in the order in which they came.

``threading.Lock`` may be had again and again by a loop that lets it go for an instant only.
"""

from __future__ import annotations

import threading
from types import TracebackType


class FairLock:
    """To be used with ``with``; not to be taken twice by one thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._next_ticket = 0
        self._served = 0
        self._abandoned: set[int] = set()  # tickets of threads that were interrupted

    def __enter__(self) -> None:
        with self._changed:
            ticket = self._next_ticket
            self._next_ticket += 1
            try:
                self._changed.wait_for(lambda: self._served == ticket)
            except BaseException:
                self._abandoned.add(ticket)
                if self._served == ticket:
                    self._go_on()
                raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._changed:
            self._go_on()

    def _go_on(self) -> None:
        self._served += 1
        while self._served in self._abandoned:
            self._abandoned.discard(self._served)
            self._served += 1
        self._changed.notify_all()
