"""What models cost to run: memory and time, side by side, as in the published table.

Pure: from what was measured (a list of objects, see ``evaluation.costs``) to a section. Knows nothing
about how it was measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from biomistral.reporting.model_sections import Section
from biomistral.reporting.tables import Cell, Column, Row, Table, number_cell

Cost = Mapping[str, Any]  # the fields of models.costs.Cost


def cost_section(costs: Sequence[Cost]) -> Section:
    """Return the section; an empty one if nothing was measured."""
    if not costs:
        return Section("cost", "")
    first = costs[0]
    threads = f"{first['threads']} thread{'s' if first['threads'] != 1 else ''}"
    where = f"on a CPU, {threads}" if first["device"] == "CPU" else first["device"]
    text = (
        f"Measured in this run ({where}), each model in a process of its own; the fastest of several "
        "times. Weights are as they lie in memory: those that are computed in full again when they are "
        "loaded have that size, whatever their file has. Memory is what a process took for the model when everything had been used once. "
        "Relative times are multiples of the first model's."
    )
    return Section("cost", "Cost", text, tables=[cost_table(costs)])


def cost_table(costs: Sequence[Cost]) -> Table:
    """One row per model: size, memory, time to load, speed, and time relative to the first."""
    first = costs[0]
    columns = (
        Column("Weights, MB", "lower"),
        Column("Memory, MB", "lower"),
        Column("Load, s", "lower"),
        Column("Reading, tokens/s", "higher", note=f"a prompt of {first['prompt_tokens']} tokens"),
        Column("Relative time", note="of reading"),
        Column("Writing, tokens/s", "higher", note="one answer"),
        Column("Relative time", note="of writing one answer"),
        Column(f"{first['batch']} at once, tokens/s", "higher", note="answers written together"),
    )
    return Table(
        id="cost",
        title="Memory and speed",
        head="Model",
        columns=columns,
        rows=tuple(Row(str(cost["model"]), _cells(cost, first)) for cost in costs),
    )


def _cells(cost: Cost, first: Cost) -> tuple[Cell, ...]:
    reading, writing = "reading_tokens_per_second", "writing_tokens_per_second"
    return (
        number_cell(cost["weight_bytes"] / 1e6),
        number_cell(cost["memory_bytes"] / 1e6, 0),
        number_cell(cost["load_seconds"]),
        number_cell(cost[reading], 0),
        number_cell(first[reading] / cost[reading], 2),
        number_cell(cost[writing]),
        number_cell(first[writing] / cost[writing], 2),
        number_cell(cost["batched_tokens_per_second"]),
    )
