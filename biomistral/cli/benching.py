"""What ``biomistral bench`` does: measure models one after the other, and show them side by side.

Knows how things look on a terminal, nothing about how they are measured.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from biomistral.cli import terminal
from biomistral.cli.evaluated_models import sources
from biomistral.errors import InputError

if TYPE_CHECKING:
    from biomistral.models.costs import Cost, CostSettings


def bench(
    models: Sequence[str], settings: CostSettings, *, run: Path | None, out: Path | None
) -> None:
    """Measure each model in a process of its own; print a table, write all numbers if asked to."""
    from biomistral.models.costs import measure_apart

    found = sources(models, run)
    for name, source in found.items():
        if "endpoint" in source:
            raise InputError(f"{name}: is served elsewhere; what it costs cannot be seen from here")
    if out is not None and not out.parent.is_dir():
        raise InputError(f"{out.parent}: there is no such folder to write {out.name} to")
    console = Console(highlight=False, markup=False)
    costs = []
    with terminal.bar(Console(stderr=True)) as bar:
        listen = terminal.listener(bar, "bench")
        for index, (name, source) in enumerate(found.items()):
            listen(index, len(found), f"models, {name}")
            costs.append(measure_apart(name, source["path"], settings))
    console.print(table(costs))
    if out is not None:
        rows = [dataclasses.asdict(cost) for cost in costs]
        out.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", "utf-8")
        console.print(f"{out}: all numbers", soft_wrap=True)


def table(costs: Sequence[Cost]) -> Table:
    """Return numbers down, models across; times relative to the first model in brackets."""
    first = costs[0]
    shown = Table(
        title=f"{first.device}, {first.threads} threads" if first.device == "CPU" else first.device,
        title_justify="left",
        caption="In brackets: time as a multiple of the first model's. Tokens are of this "
        "tokenizer; reading: a prompt; writing: an answer.",
        caption_justify="left",
    )
    shown.add_column("")
    for cost in costs:
        shown.add_column(cost.model, justify="right", overflow="fold")
    lengths = {cost.prompt_tokens for cost in costs}
    prompt = f"{first.prompt_tokens} tokens" if len(lengths) == 1 else "a prompt"
    shown.add_row("Parameters", *(f"{cost.num_parameters / 1e6:,.1f} M" for cost in costs))
    for head, kind in _SIZES.items():
        shown.add_row(head, *(size(getattr(cost, f"{kind}_bytes")) for cost in costs))
    shown.add_row("Load", *(f"{cost.load_seconds:.1f} s" for cost in costs))
    speeds = {
        f"Reading {prompt}": "reading",
        "Writing": "writing",
        f"Writing {first.batch} at once": "batched",
    }
    for head, kind in speeds.items():
        found = [getattr(cost, f"{kind}_tokens_per_second") for cost in costs]
        shown.add_row(head, *(f"{speed:,.1f}/s ({found[0] / speed:.2f})" for speed in found))
    return shown


_SIZES = {"On disk": "file", "Weights": "weight", "Memory": "memory", "Peak": "peak_memory"}


def size(number: int) -> str:
    """Bytes as people write them: 1.23 GB, 45 MB."""
    return f"{number / 1e9:.2f} GB" if number >= 1e9 else f"{number / 1e6:,.0f} MB"
