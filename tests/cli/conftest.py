from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest


class Finished(NamedTuple):
    """How a command ended and what it said."""

    status: int
    out: str
    err: str


Command = Callable[..., Finished]


@pytest.fixture
def command(monkeypatch, capsys) -> Iterator[Command]:
    """Return a function that runs a command line as the program does, in this process."""
    from biomistral.cli import main

    def run(*words: str | Path) -> Finished:
        monkeypatch.setattr(sys, "argv", ["biomistral", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Finished(int(ended.value.code or 0), said.out, said.err)

    monkeypatch.setenv("COLUMNS", "300")  # tables in one line, whatever the terminal
    before = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a recipe and returns its path."""

    def write(text: str, name: str = "recipe.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def merge_text(make_model) -> str:
    """A recipe that takes no time: two models that exist, and one merged from them."""
    return (
        f"name: small\nmodels: {{a: {{path: {make_model(0)}}}, b: {{path: {make_model(1)}}}}}\n"
        "merge: [{name: m, method: slerp, base: a, models: [{model: b}], t: 0.5}]\n"
    )
