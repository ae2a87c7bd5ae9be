"""Terminals: news become a line of the bar."""

from __future__ import annotations

import io

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
