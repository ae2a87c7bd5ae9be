"""What ``biomistral export hub`` does and prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from biomistral.errors import InputError
from biomistral.reporting.hub_export import Exported, HubNames, export_hub
from biomistral.reporting.hub_export import upload as upload_model


def hub(
    source: Path,
    out: Path,
    only: Sequence[str],
    bases: Sequence[str],
    *,
    owner: str | None,
    upload: bool,
    public: bool,
    api: Any = None,
) -> None:
    """Lay out, say what is missing, and upload if that was asked for."""
    if upload and owner is None:
        raise InputError("--upload: needs to know where to; say --owner OWNER")
    if public and not upload:
        raise InputError("--public: has no effect without --upload; leave it out")
    names = HubNames(owner, dict(map(_pair, bases)))
    exported = export_hub(source, out, names=names, only=only)
    for one in exported:
        typer.echo(f"{one.folder}")
        for note in one.notes:
            typer.echo(f"  {note}")
    if not upload:
        typer.echo(f"{len(exported)} laid out, nothing uploaded; look at the cards first")
        return
    for one in exported:
        typer.echo(
            f"uploaded: {upload_model(one, _repository(owner, one), private=not public, api=api)}"
        )


def _repository(owner: str | None, one: Exported) -> str:
    return f"{owner}/{one.name}"


def _pair(text: str) -> tuple[str, str]:
    name, sign, repository = text.partition("=")
    if not (name and sign and repository):
        raise InputError(f"--base {text}: is not of the form NAME=OWNER/NAME")
    return name, repository
