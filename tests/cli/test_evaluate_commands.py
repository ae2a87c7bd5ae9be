from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "words", [[], ["run"], ["show"], ["export", "lm-eval"], ["import", "lm-eval"]]
)
def test_every_command_has_help(command, words):
    finished = command("evaluate", *words, "--help")
    assert finished.status == 0
    assert "Usage" in finished.out


def test_the_options_load_no_library():
    code = (
        "import sys, biomistral.cli.evaluate_commands; "
        "print({'torch', 'pyarrow', 'pydantic', 'rich.console'} & set(sys.modules) - {'rich.console'})"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_models_without_a_place_for_results_are_a_usage_error(command, tiny_model):
    finished = command("evaluate", tiny_model)
    assert finished.status == 2
    assert "--out" in finished.err
