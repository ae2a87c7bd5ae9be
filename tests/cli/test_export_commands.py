from __future__ import annotations

from typer.testing import CliRunner

from biomistral.cli.app import app


def test_help_says_that_nothing_leaves_without_being_asked():
    done = CliRunner().invoke(app, ["export", "hub", "--help"], terminal_width=200)
    assert done.exit_code == 0
    assert "nothing leaves" in done.output


def test_the_output_must_be_named():
    done = CliRunner().invoke(app, ["export", "hub", "run"])
    assert done.exit_code == 2
    assert "--out" in done.output
