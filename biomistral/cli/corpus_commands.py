"""``biomistral corpus`` and its commands: options only, so that help is there at once."""

from __future__ import annotations

import typer

corpus_app = typer.Typer(
    name="corpus",
    help="Fetch articles, and look at what a corpus took and left out.",
    no_args_is_help=True,
)


@corpus_app.callback()
def _corpus() -> None:
    """Keep the name of the group where it has one command."""
