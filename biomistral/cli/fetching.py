"""What ``biomistral corpus fetch`` and ``corpus report`` do. Knows how things look on a terminal."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import get_args

import typer

from biomistral.cli import stopping
from biomistral.errors import InputError


def fetch(
    out: Path,
    ids: Path | None,
    inventory: Path | None,
    *,
    licences: str,
    connections: int,
    rate: float,
    refresh: bool,
    base_url: str,
) -> None:
    """Mirror articles and say how many are in which state."""
    stopping.interrupt_on_termination()
    from biomistral.corpus.fetching import fetch as mirror
    from biomistral.corpus.fetching import read_ids, read_inventory
    from biomistral.corpus.polite import Client, Limiter
    from biomistral.progress import ignore

    if (ids is None) == (inventory is None):
        raise InputError(
            "corpus fetch: give either --ids (a file of ids) or --inventory (an inventory of the "
            "bucket); see docs/corpus.md"
        )
    wanted = _licences(licences)
    client = Client(base_url, Limiter(rate))
    articles = read_ids(ids) if ids else read_inventory(inventory) if inventory else {}
    with ExitStack() as stack:
        progress = ignore
        if sys.stderr.isatty():
            from rich.console import Console

            from biomistral.cli import terminal

            shown = terminal.bar(Console(stderr=True, highlight=False, markup=False))
            progress = terminal.listener(stack.enter_context(shown), out.name)
        counts = mirror(
            *(articles, out, wanted, client),
            connections=connections,
            refresh=refresh,
            progress=progress,
        )
    said = ", ".join(f"{state} {number:,}" for state, number in sorted(counts.items()))
    typer.echo(f"{out}: {len(articles):,} articles; versions: {said}")


def report(tokens: Path, out: Path) -> None:
    """Write the page of a corpus."""
    from biomistral.reporting.corpus_report import write_corpus_report

    write_corpus_report(tokens, out)
    typer.echo(f"{out}: written")


def _licences(text: str) -> list[str]:
    from biomistral.recipe.fields import Licence

    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in get_args(Licence)]
    if unknown or not names:
        raise InputError(
            f"--licences {text!r}: {unknown[0] if unknown else 'nothing'!r} is no licence; allowed "
            f"are {', '.join(get_args(Licence))}"
        )
    return names
