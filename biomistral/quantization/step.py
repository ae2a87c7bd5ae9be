"""The step that quantizes: a plain checkpoint in, a checkpoint with small weights out.

The only module of the room that reads and writes. What it writes loads with Transformers as it is
where the method's library is installed, and an ``awq`` checkpoint also with
``biomistral.models.awq.load_awq_model``, which needs none.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from biomistral import artifacts
from biomistral.artifacts import Draft, Origin
from biomistral.errors import InputError, ModelError
from biomistral.models.awq import awq_config
from biomistral.models.cards import Card, read_card, write_card
from biomistral.models.checkpoints import CONFIG, Checkpoint
from biomistral.models.loading import load_tokenizer, pick_device, quiet_transformers
from biomistral.models.rows import PackedRows
from biomistral.models.vocabulary import check_rows_fit
from biomistral.models.writing import copy_companions
from biomistral.progress import Progress, ignore
from biomistral.quantization import bnb
from biomistral.quantization.streaming import open_layered, quantize_layers, write_quantized
from biomistral.recipe.settings import (
    AwqQuantization,
    BitsandbytesQuantization,
    QuantizeSettings,
)

_GOOD_TOKENS = 65_536  # 128 rows of 512, as the authors of AWQ use


def quantize(
    settings: QuantizeSettings,
    model: Path,
    out: Path,
    *,
    calibration: Path | None = None,
    seed: int = 42,
    origin: Origin | None = None,
    progress: Progress = ignore,
) -> Path:
    """Quantize the checkpoint ``model`` into the folder ``out`` and return it.

    AWQ needs ``calibration``, a ``tokens`` folder made with the model's tokenizer; ``seed`` draws
    the rows used. Raises ``ModelError`` for a model that is quantized already or not fit for the
    method, ``InputError`` for unusable calibration rows.
    """
    original = Checkpoint(model)
    _refuse_quantized(original)
    origin = origin or _origin(settings, model, calibration, seed)
    with artifacts.create(out, origin, resume=isinstance(settings, AwqQuantization)) as draft:
        draft.threads = torch.get_num_threads()
        if isinstance(settings, AwqQuantization):
            rows = _calibration_rows(settings, original, calibration, seed)
            _write_awq(settings, original, rows, draft, progress)
        else:
            _write_bitsandbytes(settings, original, draft, progress)
        if draft.device != "cpu":
            draft.not_deterministic = "GPU kernels add in varying order"
        copy_companions(model, draft.folder)
        draft.counts["weight_bytes_before"] = _weight_bytes(original)
        draft.counts["weight_bytes_after"] = _weight_bytes(Checkpoint(draft.folder))
        write_card(draft.folder, _card(settings, read_card(model), draft.counts))
    return out


def _refuse_quantized(original: Checkpoint) -> None:
    if quantization := original.config.get("quantization_config"):
        raise ModelError(
            f"{original.folder}: is quantized already (quant_method "
            f"{quantization.get('quant_method')}); quantize the model it was made from"
        )


def _origin(settings: QuantizeSettings, model: Path, calibration: Path | None, seed: int) -> Origin:
    inputs = {"model": artifacts.fingerprint_of_files([model])}
    values = settings.model_dump(mode="json")
    if calibration is not None:
        inputs["calibration"] = artifacts.fingerprint_of_files([calibration])
        values["seed"] = seed
    return Origin("model", settings.name, values, inputs)


# --- AWQ ------------------------------------------------------------------------------------------


def _calibration_rows(
    settings: AwqQuantization, original: Checkpoint, calibration: Path | None, seed: int
) -> list[tuple[Tensor, tuple[int, ...]]]:
    """Draw rows of the training split without replacement: ids without padding, and lengths."""
    if calibration is None:
        raise InputError(
            f"{settings.name}: AWQ needs text to calibrate on; name a corpus, or use "
            "method: bitsandbytes, which needs none"
        )
    rows = PackedRows(calibration, "train")
    if len(rows) == 0:
        raise InputError(f"{calibration}: has no rows to calibrate on; add articles to the corpus")
    vocabulary = original.embedding_rows() or rows.vocabulary_size
    check_rows_fit(rows, load_tokenizer(original.folder), vocabulary)
    num_rows = min(settings.calibration_rows, len(rows))
    chosen = np.random.default_rng(seed).choice(len(rows), size=num_rows, replace=False)
    drawn = (rows[int(index)] for index in sorted(chosen))
    return [(torch.from_numpy(ids[: sum(lengths)]), lengths) for ids, lengths in drawn]


def _write_awq(
    settings: AwqQuantization,
    original: Checkpoint,
    rows: list[tuple[Tensor, tuple[int, ...]]],
    draft: Draft,
    progress: Progress,
) -> None:
    device = pick_device()
    draft.device = device.type
    layered = open_layered(original, device, settings.group_size)
    _check_enough(rows, layered.config.hidden_size, settings.name)
    errors = quantize_layers(
        layered,
        rows,
        settings.group_size,
        draft.work,
        layout=settings.layout,
        progress=progress,
    )
    write_quantized(layered, draft.work, draft.folder)
    quantization = awq_config(settings.group_size, settings.layout)
    config = {**original.config, "quantization_config": quantization, "dtype": "float16"}
    _write_config(draft.folder, config)
    draft.counts |= {
        "calibration_rows": len(rows),
        "calibration_tokens": sum(len(ids) for ids, _ in rows),
        "mean_relative_weight_error": errors.means()["weight"],
        "mean_relative_output_error": errors.means()["output"],
    }


def _check_enough(rows: list[tuple[Tensor, tuple[int, ...]]], width: int, name: str) -> None:
    num_tokens = sum(len(ids) for ids, _ in rows)
    if num_tokens < width:
        raise InputError(
            f"{name}: {num_tokens} tokens of text to calibrate on are too few; a model of width "
            f"{width} needs {width} at least, and some {_GOOD_TOKENS:,} are good: add articles to the corpus, or "
            "raise calibration_rows"
        )


# --- bitsandbytes ---------------------------------------------------------------------------------


def _write_bitsandbytes(
    settings: BitsandbytesQuantization, original: Checkpoint, draft: Draft, progress: Progress
) -> None:
    progress(0, 1, "models quantized")
    quantized = bnb.load_quantized(settings, original)
    draft.device = quantized.device.type
    with quiet_transformers():
        quantized.save_pretrained(draft.folder)
    draft.counts["mean_relative_weight_error"] = bnb.weight_errors(quantized, original)
    _write_config(draft.folder, Checkpoint(draft.folder).config)
    progress(1, 1, "models quantized")


# --- what both write ------------------------------------------------------------------------------


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


def _dtype(config: dict[str, Any]) -> str | None:
    """Name of the type of the weights, by its key in Transformers 5 or in older releases."""
    return config.get("dtype") or config.get("torch_dtype")


def _weight_bytes(checkpoint: Checkpoint) -> int:
    return sum(tensor.num_bytes for tensor in checkpoint.tensors.values())


def _card(settings: QuantizeSettings, source: Card | None, counts: dict[str, Any]) -> Card:
    before, after = counts["weight_bytes_before"], counts["weight_bytes_after"]
    details = {"Size": f"{before / 1e6:,.1f} MB of weights before, {after / 1e6:,.1f} MB after"}
    if isinstance(settings, AwqQuantization):
        method = f"AWQ, {settings.bits} bits, groups of {settings.group_size}, {settings.layout.upper()} layout"
        details["Calibration"] = (
            f"{counts['calibration_rows']:,} rows, {counts['calibration_tokens']:,} tokens"
        )
    else:
        kind = "LLM.int8" if settings.bits == 8 else "NF4"
        double = ", double quantization" if settings.double_quantization else ""
        method = f"bitsandbytes, {settings.bits} bits ({kind}){double}"
    card = Card(
        name=settings.name,
        base_models=(settings.model,),
        relation="quantized",
        description=f"{settings.model} with its linear layers in {settings.bits} bits ({method}).",
        details={"Method": method, **details},
    )
    if source is None:
        return card
    return dataclasses.replace(
        card, licence=source.licence, languages=source.languages, datasets=source.datasets
    )
