"""``biomistral corpus`` and its commands: options only, so that help is there at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

corpus_app = typer.Typer(
    name="corpus",
    help="Fetch articles, build a corpus, and look at what a corpus took and left out.",
    no_args_is_help=True,
)


@corpus_app.callback()
def _corpus() -> None:
    """Keep the name of the group where it has one command."""


@corpus_app.command()
def fetch(
    out: Annotated[Path, typer.Argument(help="Folder to mirror articles to.")],
    *,
    ids: Annotated[
        Path | None,
        typer.Option(
            help="File of ids, one a line: PMC123 (newest version) or PMC123.2.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    inventory: Annotated[
        Path | None,
        typer.Option(
            help="Inventory of the bucket (.csv or .csv.gz): all articles in it.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    licences: Annotated[
        str, typer.Option(help="Licences wanted, with commas between them.")
    ] = "CC0,CC-BY,CC-BY-SA,CC-BY-ND",
    connections: Annotated[int, typer.Option(min=1, max=64, help="At a time.")] = 8,
    rate: Annotated[float, typer.Option(min=0.1, help="Most requests a second.")] = 50.0,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Fetch metadata again: articles are retracted.")
    ] = False,
    base_url: Annotated[
        str, typer.Option(help="Where the objects are.")
    ] = "https://pmc-oa-opendata.s3.amazonaws.com",
) -> None:
    """Mirror articles of PubMed Central, as far as licences permit. Goes on where it was stopped."""
    from biomistral.cli import fetching

    fetching.fetch(
        *(out, ids, inventory),
        licences=licences,
        connections=connections,
        rate=rate,
        refresh=refresh,
        base_url=base_url,
    )


@corpus_app.command()
def report(
    tokens: Annotated[Path, typer.Argument(help="Folder of packed rows (runs/NAME/tokens/...).")],
    out: Annotated[Path, typer.Option(help="The page to write, an .html file.")],
) -> None:
    """Write a page on what a corpus took and left out: reasons, licences, languages, samples."""
    from biomistral.cli import fetching

    fetching.report(tokens, out)


@corpus_app.command()
def build(
    out: Annotated[Path, typer.Argument(help="Folder for the packed rows.")],
    *,
    tokenizer: Annotated[
        str, typer.Option(help="Model whose tokenizer is used: a folder, or owner/name on the hub.")
    ],
    articles: Annotated[
        list[str] | None, typer.Option(help="Folder or pattern of JATS articles. Repeatable.")
    ] = None,
    texts: Annotated[
        list[str] | None, typer.Option(help="Folder or pattern of plain texts. Repeatable.")
    ] = None,
    sequence_length: Annotated[int | None, typer.Option(help="Tokens in a row.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; default: all processors.")] = None,
    seed: Annotated[int, typer.Option(help="Of what is held out or left out by chance.")] = 42,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any other setting of a recipe's corpus, for instance languages=[en,fr] or "
            "language_mix.tokens=3000000. Repeatable.",
        ),
    ] = None,
) -> None:
    """Make packed rows of tokens; the same as a recipe with only a corpus does. Goes on if killed."""
    from biomistral.cli import building

    given: dict[str, Any] = {
        "articles": articles,
        "texts": texts,
        "sequence_length": sequence_length,
        "workers": workers,
        "language_mix": {},
    }
    building.build(out, tokenizer, given, changes=changes or [], seed=seed)


@corpus_app.command()
def export(
    tokens: Annotated[Path, typer.Argument(help="Folder of packed rows (runs/NAME/tokens/...).")],
    out: Annotated[Path, typer.Argument(help="Folder for the dataset.")],
) -> None:
    """Write packed rows as Parquet that datasets.load_dataset reads."""
    from biomistral.cli import building

    building.export(tokens, out)
