from __future__ import annotations

import pytest


@pytest.mark.parametrize("words", [[], ["fetch"], ["report"], ["build"], ["export"]])
def test_every_command_has_help(command, words):
    finished = command("corpus", *words, "--help")
    assert finished.status == 0
    assert "Usage" in finished.out
