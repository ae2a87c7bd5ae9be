"""The package can be run as a module and is then the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from biomistral import __version__


def test_the_module_is_the_command_line() -> None:
    command = [sys.executable, "-m", "biomistral", "--version"]
    root = Path(__file__).resolve().parent.parent
    finished = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    assert finished.stdout == f"biomistral {__version__}\n"
