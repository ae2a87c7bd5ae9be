"""``biomistral export``: options only, so that help is there at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

export_app = typer.Typer(
    name="export",
    help="Bring models into the form that others share them in.",
    no_args_is_help=True,
)


@export_app.callback()
def _group() -> None:
    """Keep ``hub`` a word of its own, though it is the only command."""


@export_app.command()
def hub(
    source: Annotated[
        Path, typer.Argument(help="Folder of a run, or of one model.", metavar="DIR")
    ],
    out: Annotated[Path, typer.Option(help="Folder to lay the models out in.")],
    model: Annotated[
        list[str] | None, typer.Option(help="Only this model of the run. Repeatable.")
    ] = None,
    *,
    owner: Annotated[
        str | None, typer.Option(help="User or organization on the hub the models will be under.")
    ] = None,
    base: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=OWNER/NAME", help="What a base model is called on the hub. Repeatable."
        ),
    ] = None,
    upload: Annotated[
        bool, typer.Option("--upload", help="Upload them to OWNER, too; else nothing leaves here.")
    ] = False,
    public: Annotated[
        bool, typer.Option("--public", help="New repositories are public; else private.")
    ] = False,
) -> None:
    """Lay out models for the Hugging Face hub: card, results, licences, config for all readers."""
    from biomistral.cli import exporting

    exporting.hub(
        *(source, out, model or [], base or []), owner=owner, upload=upload, public=public
    )
