"""The quantization table: what each smaller variant of a model saves, and what it loses.

Pure functions of manifests (as dictionaries), results and comparisons. A variant is a model whose
manifest names its method; what it is a variant of is ``model`` in its settings. What was not measured
is a dash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from biomistral.records import Comparison
from biomistral.reporting.model_sections import Section
from biomistral.reporting.model_tables import in_setting
from biomistral.reporting.results import Results, Setting, average_of
from biomistral.reporting.run_tables import Artefact, parents_of
from biomistral.reporting.score_tables import ACCURACY, describe
from biomistral.reporting.tables import (
    Cell,
    Column,
    Row,
    Table,
    number_cell,
    p_cell,
    score_cell,
    slug,
    text_cell,
)

_INTERVAL = "95 % interval"


def quantization_section(
    results: Results, comparisons: Sequence[Comparison], models: Sequence[Artefact]
) -> Section:
    """Size, error, perplexity and accuracy of every variant beside its full model."""
    variants = variants_of(models)
    return Section(
        "quantization",
        "Smaller variants",
        "What each variant saves and what it loses. Losses are against the full model on the same "
        "text and the same questions, with intervals of the difference; an interval that holds 0 "
        "leaves open whether anything was lost.",
        tables=[
            size_table(variants),
            *(loss_table(results, comparisons, variants, s) for s in results.main_settings),
        ],
    )


def variants_of(models: Sequence[Artefact]) -> dict[str, list[Artefact]]:
    """Quantized models by the full model of the run that they were made from."""
    parents = parents_of(models)
    found: dict[str, list[Artefact]] = {}
    for model in models:
        if "method" in model.counts and model.name in parents:
            found.setdefault(parents[model.name], []).append(model)
    return found


def size_table(variants: Mapping[str, Sequence[Artefact]]) -> Table:
    """Bytes, bits per weight, error of the weights and perplexity on held-out text."""
    rows = []
    for full, own in variants.items():
        before = own[0].counts
        size = (before.get("weight_bytes_before"), before.get("parameters"))
        measured: Mapping[str, Any] = next(
            (v.counts["held_out"] for v in own if "held_out" in v.counts), {}
        )
        perplexity = number_cell(measured.get("perplexity_before"), 3)
        rows.append(
            Row(full, (text_cell("as it is"), *_size(*size), Cell(), perplexity, Cell(), Cell()))
        )
        rows += [Row(variant.name, _variant_cells(variant.counts)) for variant in own]
    return Table(
        id="quantization",
        title="Size, weights and perplexity",
        head="Model",
        columns=(
            Column("Method", is_text=True),
            Column("MB"),
            Column("Bits per weight", note="all weights, those left as they were included"),
            Column("Weight error, %", note="relative, mean over kinds of layers"),
            Column("Perplexity", note="per token of held-out text"),
            Column("Added loss", note="nats per token, on the same text"),
            Column(_INTERVAL, is_text=True),
        ),
        rows=tuple(rows),
        note="Of AWQ the weight error is that of the scaled weights.",
    )


def loss_table(
    results: Results,
    comparisons: Sequence[Comparison],
    variants: Mapping[str, Sequence[Artefact]],
    setting: Setting,
) -> Table:
    """Accuracy and calibration of variants, and the loss of accuracy with its interval and tests."""
    group = results.main_group
    tests = in_setting(comparisons, results, group, setting)
    tasks = results.tasks_of(group, setting)
    compared = average_of(group) if len(tasks) > 1 or not tasks else tasks[0]
    rows = []
    for full, own in variants.items():
        for index, name in enumerate([full, *(variant.name for variant in own)]):
            scores = [results.find(setting, name, compared, m) for m in (ACCURACY, "ece")]
            if any(scores):
                test = _test(tests, full, name, compared.name) if index else None
                rows.append(Row(name, (*map(score_cell, scores), *_loss_cells(test, name))))
    return Table(
        id=slug("quantization-loss", *map(str, setting)),
        title=f"What variants lose, {group} tasks: {describe(setting)}",
        head="Model",
        columns=(
            Column("Accuracy, %", "higher"),
            Column("ECE, %", "lower", note="expected calibration error, 15 equal bins"),
            Column("Change, points", note="against the full model, in percentage points"),
            Column(_INTERVAL, note="paired bootstrap over questions and seeds", is_text=True),
            Column("p", note="paired bootstrap"),
            Column("p, corrected", note="Holm, over all pairs of models"),
        ),
        rows=tuple(rows),
        note="Below the full model: its variants.",
    )


def _variant_cells(counts: Mapping[str, Any]) -> tuple[Cell, ...]:
    errors = counts.get("mean_relative_weight_error") or {}
    measured = counts.get("held_out") or {}
    low, high = (
        number_cell(measured.get(f"added_nats_per_token_{side}"), 4, signed=True).text
        for side in ("low", "high")
    )
    return (
        text_cell(str(counts["method"])),
        *_size(counts.get("weight_bytes_after"), counts.get("parameters")),
        number_cell(100 * fmean(errors.values()) if errors else None, 2),
        number_cell(measured.get("perplexity_after"), 3),
        number_cell(measured.get("added_nats_per_token"), 4, signed=True),
        text_cell(f"{low} to {high}" if measured else ""),
    )


def _size(num_bytes: int | None, parameters: int | None) -> tuple[Cell, Cell]:
    """Megabytes, and bits for each weight of the full model."""
    if num_bytes is None:
        return Cell(), Cell()
    bits = 8 * num_bytes / parameters if parameters else None
    return number_cell(num_bytes / 1e6, 1), number_cell(bits, 2)


def _test(tests: Sequence[Comparison], full: str, variant: str, task: str) -> Comparison | None:
    return next(
        (t for t in tests if t.task == task and {t.first, t.second} == {full, variant}), None
    )


def _loss_cells(test: Comparison | None, variant: str) -> tuple[Cell, ...]:
    if test is None:
        return (Cell(), Cell(), Cell(), Cell())
    sign = 100 if test.first == variant else -100
    bounds = sorted((sign * test.low, sign * test.high))
    low, high = (number_cell(bound, signed=True).text for bound in bounds)
    return (
        number_cell(sign * test.difference, signed=True),
        text_cell(f"{low} to {high}"),
        p_cell(test.p_bootstrap),
        p_cell(test.p_bootstrap_holm),
    )
