"""Open a checkpoint or a tokenizer, ready for use and in no other way than is safe.

The only place that calls ``from_pretrained``. Weights must be safetensors: a pickle can run any
code when it is opened. No code from a checkpoint is run, no weight is made up where one is missing,
and nothing is printed. Quantized checkpoints are loaded in their own form, which their
``quantization_config`` says. Knows nothing about what models are used for.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import transformers.utils.logging
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from biomistral.errors import InputError, MissingDependencyError, ModelError, require
from biomistral.models.checkpoints import Checkpoint, check_tokenizer_fits

Precision = Literal["bfloat16", "float32"]

_DTYPES: Mapping[str, torch.dtype] = {"bfloat16": torch.bfloat16, "float32": torch.float32}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# What Transformers, safetensors and the hub raise at files they cannot use.
_UNREADABLE = (OSError, ValueError, RuntimeError, KeyError, TypeError)


def pick_device() -> torch.device:
    """Return the first CUDA device if there is one, else the CPU."""
    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


def load_model(
    path: str | Path,
    *,
    revision: str | None = None,
    precision: Precision = "bfloat16",
    device: torch.device | None = None,
) -> Any:
    """Load a causal language model from a folder or the hub, in evaluation mode on ``device``.

    ``precision`` is that of the weights, or of the unquantized ones of a quantized checkpoint.
    Raises ``InputError`` if there is nothing at ``path``, ``ModelError`` if what is there is no
    whole safetensors checkpoint of a known architecture, ``MissingDependencyError`` if it is
    quantized in a form that needs a library.
    """
    device = device or pick_device()
    folder = _local_folder(path)
    config = Checkpoint(folder).config if folder else _hub_config(str(path), revision)
    quantization = config.get("quantization_config") or {}
    method = quantization.get("quant_method")
    if method == "bitsandbytes":
        require("bitsandbytes", extra="quantization", purpose=f"the quantized checkpoint {path}")
    if method == "awq" and importlib.util.find_spec("gptqmodel") is None:
        model = _own_awq(path, folder, precision)
    else:
        model = _from_pretrained(path, revision, precision, device if method else None)
    if method == "bitsandbytes" and device.type == "cpu":
        _leave_weights_as_stored(model)
    if not hasattr(model, "hf_quantizer"):
        model = model.to(device)
    return model.eval()


def load_tokenizer(path: str | Path, revision: str | None = None) -> Any:
    """Load the tokenizer of a model from a folder or the hub.

    Raises ``InputError`` if there is nothing at ``path``, ``ModelError`` if it has no tokenizer or,
    for a folder, if the tokenizer gives ids that the model's embedding does not have.
    """
    folder = _local_folder(path)
    if folder is not None:
        check_tokenizer_fits(folder)
    try:
        with quiet_transformers():
            return AutoTokenizer.from_pretrained(str(path), revision=revision or "main")
    except _UNREADABLE as error:
        raise ModelError(
            f"{path}: has no tokenizer that can be loaded ({_first_line(error)}); put the "
            "tokenizer files of its base model (tokenizer.json, tokenizer_config.json) beside it"
        ) from error


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the progress bars and reports of Transformers for a while."""
    log: Any = transformers.utils.logging
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity(logging.CRITICAL)
    log.disable_progress_bar()
    bitsandbytes = logging.getLogger("bitsandbytes")
    level = bitsandbytes.level
    bitsandbytes.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        bitsandbytes.setLevel(level)
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()


def _local_folder(path: str | Path) -> Path | None:
    """Return the folder, or None if ``path`` is the id of a hub repository."""
    folder = Path(path)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise InputError(f"{path}: is a file; name the folder of a checkpoint")
    if isinstance(path, str) and _HUB_ID.fullmatch(path):
        return None
    raise InputError(
        f"{path}: there is no such folder; name the folder of a checkpoint, "
        "or a hub repository as owner/name"
    )


def _hub_config(name: str, revision: str | None) -> dict[str, Any]:
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(name, revision=revision or "main")
    except _UNREADABLE as error:
        raise ModelError(
            f"{name}: is no folder here, and cannot be fetched from the hub as such "
            f"({_first_line(error)}); check name, revision and network, or name a folder"
        ) from error
    values: dict[str, Any] = config.to_dict()
    return values


def _own_awq(path: str | Path, folder: Path | None, precision: Precision) -> Any:
    """Load an AWQ checkpoint without the library that has kernels for it."""
    from biomistral.models.awq import load_awq_model

    if folder is None:
        raise ModelError(
            f"{path}: without the library gptqmodel, AWQ checkpoints are read from folders only; "
            f"fetch it first (hf download {path} --local-dir FOLDER) and name the folder"
        )
    with quiet_transformers():
        return load_awq_model(folder, precision)


def _from_pretrained(
    path: str | Path, revision: str | None, precision: Precision, device: torch.device | None
) -> Any:
    """Load with Transformers; weights go straight to ``device`` if it is given."""
    load: Any = AutoModelForCausalLM.from_pretrained
    try:
        with quiet_transformers():
            model, report = load(
                str(path),
                revision=revision or "main",
                # Given here and not cast later: a later cast would round the rotary frequencies.
                dtype=_DTYPES[precision],
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # to name them below
                **({"device_map": {"": device}} if device is not None else {}),
            )
    except ImportError as error:
        raise MissingDependencyError(
            f"{path}: is quantized in a form that needs a library which is not installed "
            f"({_first_line(error)}); install it, or use the unquantized model"
        ) from error
    except _UNREADABLE as error:
        raise ModelError(
            f"{path}: cannot be loaded as a causal language model ({_first_line(error)}); "
            "name a whole safetensors checkpoint that Transformers knows without extra code"
        ) from error
    missing, mismatched = sorted(report["missing_keys"]), sorted(report["mismatched_keys"])
    if missing or mismatched:
        problem = (
            f"lacks the weight {missing[0]!r}"
            if missing
            else f"has the weight {mismatched[0][0]!r} in another shape than its config says"
        )
        raise ModelError(
            f"{path}: {problem} ({len(missing) + len(mismatched)} such in all), random numbers "
            "would stand in for it; fetch the checkpoint again"
        )
    return model


def _leave_weights_as_stored(model: Any) -> None:
    """Keep bitsandbytes (0.50) from repacking 4-bit weights in the first forward pass on a CPU.

    With AVX512-BF16 the repacked weights lose their gradients and are saved wrong.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".:") or type(error).__name__
