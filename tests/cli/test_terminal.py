"""Terminals: news become a line of the bar, and a batch system's signal an interruption."""

from __future__ import annotations

import io
import os
import signal

import pytest
from rich.console import Console

from biomistral.cli import terminal


def test_news_are_counted_in_the_bar():
    with terminal.bar(Console(file=io.StringIO())) as shown:
        listen = terminal.listener(shown, "merging")
        listen(3, 10, "tensors merged")
        (task,) = shown.tasks
        assert (task.description, task.completed, task.total) == ("merging", 3, 10)
        assert task.fields["text"] == "3 of 10 tensors merged"
        listen(4, None, "tensors merged")
        assert task.fields["text"] == "tensors merged"


def test_a_termination_is_an_interruption():
    before = signal.getsignal(signal.SIGTERM)
    try:
        terminal.interrupt_on_termination()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
