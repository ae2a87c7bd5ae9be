"""The signal of a batch system is an interruption, with a bar or without one."""

from __future__ import annotations

import os
import signal

import pytest

from biomistral import merging
from biomistral.cli import stopping


def test_a_termination_is_an_interruption():
    before = signal.getsignal(signal.SIGTERM)
    try:
        stopping.interrupt_on_termination()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_merge_without_a_terminal_can_be_stopped(command, tmp_path, monkeypatch):
    def stopped(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(merging, "merge_config", stopped, raising=False)
    finished = command("merge", tmp_path / "config.yml", tmp_path / "out")
    assert finished.status == 130
    assert "interrupted; run the same command again" in finished.err
