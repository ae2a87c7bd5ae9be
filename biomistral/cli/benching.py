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
    """Return models down, numbers across; times relative to the first model in brackets."""
    first = costs[0]
    shown = Table(
        title=f"{first.device}, {first.threads} threads" if first.device == "CPU" else first.device,
        title_justify="left",
        caption="In brackets: time as a multiple of the first model's. Tokens are of this "
        "tokenizer; reading: a prompt; writing: an answer.",
        caption_justify="left",
    )
    shown.add_column("Model", overflow="fold")
    heads = ["Parameters", "On disk", "Weights", "Memory", "Peak", "Load"]
    lengths = {cost.prompt_tokens for cost in costs}
    prompt = f"{first.prompt_tokens} tokens" if len(lengths) == 1 else "a prompt"
    heads += [f"Reading {prompt}", "Writing", f"Writing {first.batch} at once"]
    for head in heads:
        shown.add_column(head, justify="right", overflow="fold")
    for cost in costs:
        speeds = [
            f"{getattr(cost, name):,.1f}/s ({getattr(first, name) / getattr(cost, name):.2f})"
            for name in (
                "reading_tokens_per_second",
                "writing_tokens_per_second",
                "batched_tokens_per_second",
            )
        ]
        shown.add_row(
            cost.model,
            f"{cost.num_parameters / 1e6:,.1f} M",
            *(
                size(getattr(cost, f"{kind}_bytes"))
                for kind in ("file", "weight", "memory", "peak_memory")
            ),
            f"{cost.load_seconds:.1f} s",
            *speeds,
        )
    return shown


def size(number: int) -> str:
    """Bytes as people write them: 1.23 GB, 45 MB."""
    return f"{number / 1e9:.2f} GB" if number >= 1e9 else f"{number / 1e6:,.0f} MB"
