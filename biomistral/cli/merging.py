"""What ``biomistral merge`` and its commands show. Knows how things look on a terminal only."""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from biomistral.advisory import ADVISORY
from biomistral.cli import stopping
from biomistral.errors import InputError

if TYPE_CHECKING:
    from biomistral.merging import MergeOptions
    from biomistral.merging.plan import Plan
    from biomistral.progress import Progress

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_MOST_WARNINGS = 20
_MANY = 10**9


def run(config: Path, out: Path, options: MergeOptions) -> None:
    """Merge, with a bar if somebody looks."""
    stopping.interrupt_on_termination()
    from biomistral.artifacts import read_manifest
    from biomistral.merging import merge_config

    start = time.perf_counter()
    _say_if_not_compiled()
    with ExitStack() as stack:
        merge_config(config, out, options=options, progress=_progress(stack, out.name))
    counts = (read_manifest(out) or {}).get("counts", {})
    _say_warnings(counts.get("warnings", []))
    what = f"{counts.get('tensors', '?')} tensors, {_parameters(counts.get('parameters', 0))}"
    typer.echo(f"{out}: {what}, {time.perf_counter() - start:.1f} s")
    typer.echo(ADVISORY)


def plan(config: Path, *, allow_pickle: bool) -> None:
    """Show what a merge would do; write nothing that stays."""
    stopping.interrupt_on_termination()
    from biomistral.merging.config import load_config
    from biomistral.merging.estimate import estimate_seconds
    from biomistral.merging.plan import find_folders, plan_merge

    loaded = load_config(config)
    folders = find_folders(loaded, allow_pickle=allow_pickle)
    planned = plan_merge(loaded, folders, allow_pickle=allow_pickle)
    for line in _described(planned):
        typer.echo(line)
    _say_if_not_compiled()
    _say_warnings(planned.warnings)
    try:
        seconds, done = estimate_seconds(planned)
    except OSError as error:
        typer.echo(f"time:      not estimated ({error.strerror}: {tempfile.gettempdir()})")
        return
    typer.echo(
        f"time:      about {max(seconds, 0.1):.2g} s here, from merging {done:.0%} of it now "
        "(files that are read for the first time take longer)"
    )


def diff(
    a: str,
    b: str,
    *,
    plot: Path | None,
    numbers: Path | None,
    per_tensor: bool,
    allow_pickle: bool,
) -> None:
    """Show how far two checkpoints are apart."""
    stopping.interrupt_on_termination()
    from biomistral.merging.difference import as_json, compare, table

    for file in filter(None, (plot, numbers)):
        _check_place(file)
    if plot:
        from biomistral.merging.difference_plot import check_suffix

        check_suffix(plot)
    folders = [_model_folder(text, allow_pickle=allow_pickle) for text in (a, b)]
    with ExitStack() as stack:
        listen = _progress(stack, "compared")
        comparison = compare(*folders, allow_pickle=allow_pickle, progress=listen)
    typer.echo(table(comparison, per_tensor=per_tensor))
    if numbers:
        numbers.write_text(json.dumps(as_json(comparison), indent=2) + "\n", encoding="utf-8")
    if plot:
        from biomistral.merging.difference_plot import plot as draw

        draw(comparison, plot)
        typer.echo(f"{plot}: drawn")


def extract_lora(model: str, base: str, out: Path, *, allow_pickle: bool, **options: Any) -> None:
    """Make an adapter of the difference between two models."""
    stopping.interrupt_on_termination()
    from biomistral.artifacts import read_manifest
    from biomistral.merging.extraction import extract_lora as extract

    folders = (
        _model_folder(model, allow_pickle=allow_pickle),
        _model_folder(base, allow_pickle=allow_pickle),
    )
    with ExitStack() as stack:
        listen = _progress(stack, out.name)
        extract(*folders, out, allow_pickle=allow_pickle, progress=listen, **options)
    counts = (read_manifest(out) or {}).get("counts", {})
    _say_warnings(counts.get("warnings", []))
    typer.echo(f"{out}: " + ", ".join(f"{k} {v:.4g}" for k, v in counts.items() if _is_number(v)))
    typer.echo(ADVISORY)


def _model_folder(text: str, *, allow_pickle: bool) -> Path:
    """Return the folder of a model as a configuration would name it, without an adapter."""
    from biomistral.merging.references import locate, parse_reference

    try:
        reference = parse_reference(text)
    except ValueError as error:
        raise InputError(str(error)) from None
    if reference.adapter is not None:
        raise InputError(
            f"{text}: is a model with an adapter; merge the two first (merge_method: passthrough) "
            "and name the folder of the result"
        )
    return locate([reference], allow_pickle=allow_pickle)[reference.model.text]


def _check_place(file: Path) -> None:
    if not file.parent.is_dir():
        raise InputError(f"{file}: there is no folder {file.parent}; make it, or name another file")
    if file.is_dir():
        raise InputError(f"{file}: is a folder; name a file in it")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def shard_bytes(text: str) -> int:
    """Read a size such as 5GB or 500MB. Raises ``InputError`` for anything else."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?B?)\s*", text, re.IGNORECASE)
    unit = found[2].upper() if found else ""
    size = int(float(found[1]) * _UNITS[unit if unit in _UNITS else f"{unit}B"]) if found else 0
    if size < 1:
        raise InputError(f"--shard-size {text!r}: is no size; write it like 5GB or 500MB")
    return size


def _described(planned: Plan) -> list[str]:
    config = planned.config
    jobs = planned.jobs
    parameters = sum(job.output.num_elements for job in jobs)
    types = sorted({job.output.dtype for job in jobs})
    lines = [f"method:    {config.method} ({config.rules.paper})"]
    for name, checkpoint in planned.models.items():
        role = "gives config and tokenizer" if name == config.donor else ""
        size = sum(tensor.num_bytes for tensor in checkpoint.tensors.values())
        adapter = " with its adapter" if name in planned.adapters else ""
        lines.append(f"reads:     {name}{adapter}, {_bytes(size)}{', ' if role else ''}{role}")
    tokens = "as they are"
    if planned.vocabulary is not None:
        tokens = f"{config.tokenizer.source if config.tokenizer else ''}: {planned.vocabulary.size}"
    written = f"{_parameters(parameters)}, {_bytes(planned.write_bytes)}"
    return [
        *lines,
        f"writes:    {len(jobs)} tensors, {', '.join(types)}, {written}",
        f"layers:    {planned.output_config.get('num_hidden_layers', 'as in the base')}",
        f"tokens:    {tokens}",
    ]


def _bytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= _MANY else f"{num_bytes / 1e6:.2f} MB"


def _parameters(num: int) -> str:
    many = num >= _MANY / 10
    return f"{num / 1e9:.2f} billion parameters" if many else f"{num:,} parameters"


def _say_if_not_compiled() -> None:
    from biomistral.merging import kernels

    if kernels.library() is None:
        typer.echo(
            "warning:   the compiled loops could not be built (they need a C compiler: cc, gcc or "
            "$CC, and a cache folder to write to); merging gives the same bytes without them, "
            "several times slower",
            err=True,
        )


def _say_warnings(warnings: Sequence[str]) -> None:
    for warning in warnings[:_MOST_WARNINGS]:
        typer.echo(f"warning:   {warning}", err=True)
    if len(warnings) > _MOST_WARNINGS:
        typer.echo(f"warning:   and {len(warnings) - _MOST_WARNINGS} more", err=True)


def _progress(stack: ExitStack, label: str) -> Progress:
    """Return a listener: a bar if standard error is a terminal, else nobody."""
    from biomistral.progress import ignore

    if not sys.stderr.isatty():
        return ignore
    from rich.console import Console

    from biomistral.cli import terminal

    shown = terminal.bar(Console(stderr=True, highlight=False, markup=False))
    return terminal.listener(stack.enter_context(shown), label)
