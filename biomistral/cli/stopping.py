"""How long commands are stopped. Knows nothing about what is done, and loads next to nothing."""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn


def interrupt_on_termination() -> None:
    """Let SIGTERM, which batch systems send first, be an interruption like Ctrl-C."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
