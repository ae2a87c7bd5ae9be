"""``biomistral report``: one report of one or several runs, whole or not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from biomistral.errors import InputError

TEXTS = ("open", "all", "none")


def report(
    runs: Annotated[
        list[Path], typer.Argument(help="Folders of runs (runs/NAME).", metavar="RUN...")
    ],
    *,
    out: Annotated[Path, typer.Option(help="Folder for the report.")],
    title: Annotated[str | None, typer.Option(help="Default: the names of the runs.")] = None,
    texts: Annotated[
        str,
        typer.Option(
            help="Questions whose texts are shown: open (their licence lets anybody pass them on), "
            "all or none."
        ),
    ] = "open",
) -> None:
    """Report on runs that are there, finished or not: tables, figures, and all questions to browse.

    What two runs share is shown once; names that mean different things have the run behind them.
    """
    if texts not in TEXTS:
        raise InputError(f"--texts: {texts!r} is not one of {', '.join(TEXTS)}")
    from biomistral.reporting import report_runs

    made = report_runs(out, runs, title=title, texts=texts)  # type: ignore[arg-type]
    typer.echo(f"Report: {made / 'index.html'}")
