"""What ``biomistral corpus build`` and ``export`` show. Knows how things look on a terminal only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
import yaml
from rich.console import Console

from biomistral.cli import terminal
from biomistral.recipe import parse_recipe


def build(
    out: Path,
    tokenizer: str,
    given: Mapping[str, Any],
    *,
    changes: Sequence[str],
    seed: int,
) -> None:
    """Build a corpus from options: those of a recipe's corpus section, and checked as such."""
    recipe = {
        "name": "corpus",
        "models": {"tokenizer": {"path": tokenizer}},
        "corpus": [{"tokenizer": "tokenizer", **{k: v for k, v in given.items() if v is not None}}],
    }
    settings = parse_recipe(
        yaml.safe_dump(recipe),
        source="corpus build",
        changes=[f"corpus.0.{change}" for change in changes],
    ).corpus[0]
    terminal.interrupt_on_termination()
    from biomistral.artifacts import read_manifest
    from biomistral.corpus import build_corpus
    from biomistral.models.hub import local_folder

    folder = local_folder(tokenizer)
    with terminal.bar(Console(stderr=True)) as bar:
        build_corpus(settings, folder, out, seed=seed, progress=terminal.listener(bar, out.name))
    _say(out, (read_manifest(out) or {}).get("counts", {}))


def export(tokens: Path, out: Path) -> None:
    """Write packed rows as a dataset."""
    terminal.interrupt_on_termination()
    from biomistral.corpus import export_rows

    with terminal.bar(Console(stderr=True)) as bar:
        export_rows(tokens, out, progress=terminal.listener(bar, out.name))
    typer.echo(f'{out}: read it with datasets.load_dataset("{out}")')


def _say(out: Path, counts: Mapping[str, Any]) -> None:
    """Say what was kept, what was dropped and what came out."""
    typer.echo(
        f"{out}: {counts['documents_kept']:,} of {counts['documents_seen']:,} documents, "
        f"{counts['tokens']:,} tokens in {counts['rows']:,} rows "
        f"({counts['padding_fraction']:.2%} padding, {counts['held_out_rows']:,} rows held out)"
    )
    for what in ("dropped", "by_language", "by_licence"):
        listed = ", ".join(f"{name} {number:,}" for name, number in counts[what].items())
        typer.echo(f"  {what.replace('_', ' ')}: {listed or 'none'}")
    typer.echo("  whom the texts are from: ATTRIBUTION.txt; what the corpus is: DATASHEET.md")
