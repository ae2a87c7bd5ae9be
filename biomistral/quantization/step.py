"""The step that quantizes: a plain checkpoint in, one with small weights out.

The only module of the room that knows artefacts. What it makes is loaded with
``biomistral.models.loading``, and by other programs as docs/quantization.md says. Nothing is ever
saved from a model that has been run: libraries repack weights at the first use, and some save the
repacked ones without a word.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from biomistral import artifacts
from biomistral.artifacts import Draft, Origin
from biomistral.errors import InputError, ModelError
from biomistral.models.awq import awq_config
from biomistral.models.cards import Card, read_card, read_front_matter, write_card
from biomistral.models.checkpoints import CONFIG, Checkpoint
from biomistral.models.gguf import gguf_file
from biomistral.models.loading import (
    Precision,
    load_model,
    load_tokenizer,
    pick_device,
    quiet_transformers,
)
from biomistral.models.rows import PackedRows, Split
from biomistral.models.vocabulary import check_rows_fit
from biomistral.models.writing import copy_companions
from biomistral.progress import Progress, ignore
from biomistral.quantization import bnb, gguf_check, gguf_writing
from biomistral.quantization.descriptions import describe
from biomistral.quantization.half import write_half
from biomistral.quantization.quality import Row, compare_losses, row_losses
from biomistral.quantization.streaming import open_layered, quantize_layers, write_quantized
from biomistral.recipe.settings import (
    AwqQuantization,
    BitsandbytesQuantization,
    GgufQuantization,
    HalfPrecision,
    QuantizeSettings,
)

_GOOD_TOKENS = 65_536  # 128 rows of 512, as the authors of AWQ use
_MOST_HELD_OUT_ROWS = 128


@dataclass(frozen=True)
class _Job:
    """What a method works with."""

    settings: Any
    original: Checkpoint
    calibration: Path | None
    seed: int
    draft: Draft
    progress: Progress


def quantize(
    settings: QuantizeSettings,
    model: Path,
    out: Path,
    *,
    calibration: Path | None = None,
    held_out: Path | None = None,
    seed: int = 42,
    origin: Origin | None = None,
    progress: Progress = ignore,
) -> Path:
    """Quantize the checkpoint ``model`` into the folder ``out`` and return it.

    AWQ needs ``calibration``, a ``tokens`` folder made with the model's tokenizer; ``seed`` draws
    the rows used. With ``held_out``, another such folder, the perplexity on its held-out rows is
    measured before and after. Raises ``ModelError`` for a model that is quantized already or not fit
    for the method, ``InputError`` for unusable rows.
    """
    if file := gguf_file(model):
        raise ModelError(
            f"{file}: is quantized already (GGUF); quantize the model it was made from"
        )
    original = Checkpoint(model)
    _refuse_quantized(original)
    texts = {"calibration": calibration, "held_out": held_out}
    origin = origin or _origin(settings, model, texts, seed)
    with artifacts.create(out, origin, resume=isinstance(settings, AwqQuantization)) as draft:
        draft.threads = torch.get_num_threads()
        measured = _held_out_rows(original, held_out) if held_out else []
        _METHODS[type(settings)](_Job(settings, original, calibration, seed, draft, progress))
        if draft.device != "cpu":
            draft.not_deterministic = "GPU kernels add in varying order"
        copy_companions(model, draft.folder)
        draft.counts["weight_bytes_before"] = _weight_bytes(model)
        draft.counts["weight_bytes_after"] = _weight_bytes(draft.folder)
        draft.counts["parameters"] = sum(math.prod(t.shape) for t in original.tensors.values())
        draft.counts["method"] = describe(settings)
        if measured:
            progress(0, None, "measuring perplexity")
            draft.counts["held_out"] = _losses(original, draft.folder, measured)
        source = read_card(model) or read_front_matter(model)
        write_card(draft.folder, _card(settings, source, draft.counts))
    return out


def _refuse_quantized(original: Checkpoint) -> None:
    if quantization := original.config.get("quantization_config"):
        raise ModelError(
            f"{original.folder}: is quantized already (quant_method "
            f"{quantization.get('quant_method')}); quantize the model it was made from"
        )


def _origin(
    settings: QuantizeSettings, model: Path, texts: Mapping[str, Path | None], seed: int
) -> Origin:
    given = {"model": model, **{name: path for name, path in texts.items() if path is not None}}
    inputs = {name: artifacts.fingerprint_of_files([path]) for name, path in given.items()}
    values = settings.model_dump(mode="json")
    return Origin(
        "model", settings.name, values | ({"seed": seed} if len(given) > 1 else {}), inputs
    )


# --- rows -----------------------------------------------------------------------------------------


def _rows(original: Checkpoint, folder: Path, split: Split) -> PackedRows:
    rows = PackedRows(folder, split)
    vocabulary = original.embedding_rows() or rows.vocabulary_size
    check_rows_fit(rows, load_tokenizer(original.folder), vocabulary)
    return rows


def _calibration_rows(job: _Job) -> list[Row]:
    """Draw rows of the training split without replacement: ids without padding, and lengths."""
    if job.calibration is None:
        raise InputError(
            f"{job.settings.name}: AWQ needs text to calibrate on; name a corpus, or use "
            "method: bitsandbytes, which needs none"
        )
    rows = _rows(job.original, job.calibration, "train")
    if len(rows) == 0:
        raise InputError(
            f"{job.calibration}: has no rows to calibrate on; add articles to the corpus"
        )
    num_rows = min(job.settings.calibration_rows, len(rows))
    chosen = np.random.default_rng(job.seed).choice(len(rows), size=num_rows, replace=False)
    return [_without_padding(rows, int(index)) for index in sorted(chosen)]


def _held_out_rows(original: Checkpoint, folder: Path) -> list[Row]:
    """Take held-out rows evenly over the corpus."""
    rows = _rows(original, folder, "held_out")
    if len(rows) == 0:
        raise InputError(
            f"{folder}: has no held-out rows to measure perplexity on; raise the corpus's "
            "held_out_fraction, or leave held_out out"
        )
    step = -(-len(rows) // _MOST_HELD_OUT_ROWS)
    return [_without_padding(rows, index) for index in range(0, len(rows), step)]


def _without_padding(rows: PackedRows, index: int) -> Row:
    ids, lengths = rows[index]
    return torch.from_numpy(ids[: sum(lengths)]), lengths


# --- the methods ----------------------------------------------------------------------------------


def _write_awq(job: _Job) -> None:
    settings, draft = job.settings, job.draft
    rows = _calibration_rows(job)
    device = pick_device()
    draft.device = device.type
    layered = open_layered(job.original, device, settings.group_size)
    _check_enough(rows, layered.config.hidden_size, settings.name)
    quantization = awq_config(settings.group_size, settings.layout)
    errors = quantize_layers(
        layered,
        rows,
        settings.group_size,
        draft.work,
        layout=settings.layout,
        progress=job.progress,
    )
    write_quantized(layered, draft.work, draft.folder)
    config = {**job.original.config, "quantization_config": quantization, "dtype": "float16"}
    _write_config(draft.folder, config)
    draft.counts |= {
        "calibration_rows": len(rows),
        "calibration_tokens": sum(len(ids) for ids, _ in rows),
        "mean_relative_weight_error": errors.means()["weight"],
        "mean_relative_output_error": errors.means()["output"],
    }


def _check_enough(rows: list[Row], width: int, name: str) -> None:
    num_tokens = sum(len(ids) for ids, _ in rows)
    if num_tokens < width:
        raise InputError(
            f"{name}: {num_tokens} tokens of text to calibrate on are too few; a model of width "
            f"{width} needs {width} at least, and some {_GOOD_TOKENS:,} are good: add articles to "
            "the corpus, or raise calibration_rows"
        )


def _write_bitsandbytes(job: _Job) -> None:
    job.progress(0, 1, "models quantized")
    quantized = bnb.load_quantized(job.settings, job.original)
    job.draft.device = quantized.device.type
    errors = bnb.weight_errors(quantized, job.original)
    if broken := [kind for kind, error in errors.items() if not math.isfinite(error)]:
        raise ModelError(
            f"{job.original.folder}: weights of {broken[0]} are not finite; look for what broke the "
            "model, or fetch it again"
        )
    with quiet_transformers():
        quantized.save_pretrained(job.draft.folder)
    job.draft.counts["mean_relative_weight_error"] = errors
    _write_config(job.draft.folder, Checkpoint(job.draft.folder).config)
    job.progress(1, 1, "models quantized")


def _write_half(job: _Job) -> None:
    errors = write_half(job.original, job.draft.folder, job.settings.dtype, job.progress)
    job.draft.counts["mean_relative_weight_error"] = _means(errors)
    _write_config(job.draft.folder, {**job.original.config, "dtype": job.settings.dtype})


def _write_gguf(job: _Job) -> None:
    settings, draft = job.settings, job.draft
    file = draft.folder / f"{settings.name}.gguf"
    own = settings.type in gguf_writing.OWN_TYPES
    if not own:
        gguf_writing.find_tool(settings.type)  # before an hour's work
    plain = file if own else draft.work / "plain.gguf"
    tokenizer = load_tokenizer(job.original.folder)
    errors = gguf_writing.write_gguf(
        job.original,
        plain,
        settings.type if own else "bf16",
        name=settings.name,
        tokenizer=tokenizer,
        progress=job.progress,
    )
    if not own:
        gguf_writing.run_tool(plain, file, settings.type)
        errors = gguf_check.weight_errors(job.original, file)
    draft.counts["mean_relative_weight_error"] = _means(errors)
    _write_config(draft.folder, job.original.config)  # for readers that look for it beside the file
    job.progress(0, None, "reading the file back")
    with quiet_transformers():
        draft.counts["read_back"] = gguf_check.check_file(job.original, file, tokenizer)


_METHODS: Mapping[type, Callable[[_Job], None]] = {
    AwqQuantization: _write_awq,
    BitsandbytesQuantization: _write_bitsandbytes,
    GgufQuantization: _write_gguf,
    HalfPrecision: _write_half,
}


# --- what all write -------------------------------------------------------------------------------


def _write_config(folder: Path, config: dict[str, Any]) -> None:
    """Write ``config.json`` with the keys of Transformers 5 and those that older readers look for.

    Without them such readers silently take the default base of the rotary frequencies.
    """
    older: dict[str, Any] = {}
    if dtype := _dtype(config):
        older["torch_dtype"] = dtype
    if theta := (config.get("rope_parameters") or {}).get("rope_theta"):
        older["rope_theta"] = theta
    artifacts.write_json(folder / CONFIG, {**config, **older})


def _dtype(config: Mapping[str, Any]) -> str | None:
    """Name of the type of the weights, by its key in Transformers 5 or in older releases."""
    return config.get("dtype") or config.get("torch_dtype")


def _weight_bytes(folder: Path) -> int:
    return sum(
        os.path.getsize(file)  # noqa: PTH202  follows links, as the cache of the hub needs
        for pattern in ("*.safetensors", "*.gguf")
        for file in folder.glob(pattern)
    )


def _means(errors: Mapping[str, list[float]]) -> dict[str, float]:
    return {kind: fmean(found) for kind, found in sorted(errors.items())}


def _losses(original: Checkpoint, folder: Path, rows: list[Row]) -> dict[str, float | int]:
    """Measure both models in the type of the original, one after the other."""
    precision: Precision = "float32" if _dtype(original.config) == "float32" else "bfloat16"
    found = []
    for place in (original.folder, folder):
        model: Any = load_model(place, precision=precision)
        found.append(row_losses(model, rows))
        del model
    return compare_losses(*found)


def _card(settings: QuantizeSettings, source: Card | None, counts: Mapping[str, Any]) -> Card:
    before, after = counts["weight_bytes_before"], counts["weight_bytes_after"]
    details = {
        "Method": counts["method"],
        "Size": f"{before / 1e6:,.1f} MB of weights before, {after / 1e6:,.1f} MB after",
    }
    if "calibration_rows" in counts:
        details["Calibration"] = (
            f"{counts['calibration_rows']:,} rows, {counts['calibration_tokens']:,} tokens"
        )
    if measured := counts.get("held_out"):
        details["Perplexity on held-out text"] = (
            f"{measured['perplexity_before']:.3f} before, {measured['perplexity_after']:.3f} after"
        )
    card = Card(
        name=settings.name,
        base_models=(settings.model,),
        relation="quantized",
        description=f"{settings.model} with smaller weights: {counts['method']}.",
        details=details,
    )
    if source is None:  # nobody said what it is about
        return dataclasses.replace(card, languages=(), topics=())
    return dataclasses.replace(
        card,
        licence=source.licence,
        languages=source.languages,
        topics=source.topics,
        datasets=source.datasets,
    )
