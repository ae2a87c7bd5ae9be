from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from biomistral.cli.groups import RunByDefault

app = typer.Typer()
group = typer.Typer(name="work", cls=RunByDefault, no_args_is_help=True)
app.add_typer(group)


@group.command("run")
def run(what: str, often: int = 1) -> None:
    typer.echo(f"run {what} {often}")


@group.command("plan")
def plan(what: str) -> None:
    typer.echo(f"plan {what}")


@app.callback()
def whole() -> None:
    """Nothing of its own."""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["x"], "run x 1"),
        (["x", "--often", "2"], "run x 2"),
        (["--often", "2", "x"], "run x 2"),
        (["run", "x"], "run x 1"),
        (["plan", "x"], "plan x"),
        (["./plan"], "run ./plan 1"),
    ],
)
def test_what_is_no_command_is_run(words, said):
    assert CliRunner().invoke(app, ["work", *words]).stdout == said + "\n"


def test_help_is_of_the_group():
    finished = CliRunner().invoke(app, ["work", "--help"])
    assert finished.exit_code == 0
    assert "plan" in finished.stdout
