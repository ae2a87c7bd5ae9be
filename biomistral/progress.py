"""How long work tells where it is, without knowing who listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called now and then by long work; must be cheap and must not raise."""

    def __call__(self, done: float, total: float | None, text: str) -> None:
        """``done`` of ``total`` units (None: not known), and what is going on in a few words."""


def ignore(done: float, total: float | None, text: str) -> None:
    """Listen to nothing."""
