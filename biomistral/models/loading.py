"""Open a checkpoint or a tokenizer, ready for use and in no other way than is safe.

Every model that is used is opened here (one that is being quantized is opened by the method that
does it, and ``awq`` reads its own format). Weights must be safetensors: a pickle can run any
code when it is opened. No code from a checkpoint is run, no weight is made up where one is missing,
and nothing is printed. Quantized checkpoints are loaded in their own form, which their
``quantization_config`` says. Knows nothing about what models are used for.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import transformers.utils.logging
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from biomistral.errors import MissingDependencyError, ModelError, require
from biomistral.models.adapted import Adapted, adapted, add_adapter
from biomistral.models.checkpoints import Checkpoint, check_tokenizer_fits
from biomistral.models.gguf import gguf_file, load_gguf_model, load_gguf_tokenizer
from biomistral.models.hub import local_folder

Precision = Literal["bfloat16", "float32"]

_DTYPES: Mapping[str, torch.dtype] = {"bfloat16": torch.bfloat16, "float32": torch.float32}
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
    bits: Literal[4, 8] | None = None,
) -> Any:
    """Load a causal language model from a folder or the hub, in evaluation mode on ``device``.

    A GGUF file, or a folder with one, gives a plain model; an adapter's folder, or BASE+ADAPTER, the
    model with the adapter added to it. ``precision`` is that of the weights, or
    of the unquantized ones of a quantized checkpoint. With ``bits``, a plain checkpoint is quantized
    on the way: 8 (LLM.int8) or 4 (NF4). The model's ``stored_as`` says how it was quantized (awq,
    bitsandbytes, gguf, ...), None if it was not.

    Raises ``InputError`` if there is nothing at ``path``, ``ModelError`` if what is there is no
    whole safetensors checkpoint of a known architecture (or a quantized one, with ``bits``),
    ``MissingDependencyError`` if it is to be quantized in a form that needs a library.
    """
    device = device or pick_device()
    if parts := adapted(path, revision):
        return _load_adapted(parts, precision, device, bits)
    if file := gguf_file(Path(path)):
        with quiet_transformers():
            model = load_gguf_model(file, _DTYPES[precision]).to(device).eval()
        model.stored_as = "gguf"
        return model
    folder = local_folder(path, revision)
    quantization = Checkpoint(folder).config.get("quantization_config") or {}
    method = quantization.get("quant_method")
    if method and bits:
        raise ModelError(
            f"{path}: is quantized already ({method}); name the model that it was made of"
        )
    method = "bitsandbytes" if bits else method
    if method == "bitsandbytes":
        purpose = f"loading {path} in {bits} bits" if bits else f"the quantized checkpoint {path}"
        require("bitsandbytes", extra="quantization", purpose=purpose)
    model = None
    if method == "awq":
        model = _own_awq(folder, precision, device)
    if model is None:
        model = _from_pretrained(folder, precision, device if method else None, bits)
    if method == "bitsandbytes":
        leave_weights_as_stored(model)
        _set_precision(model, _DTYPES[precision])
    model.stored_as = method
    if not hasattr(model, "hf_quantizer"):
        model = model.to(device)
    return model.eval()


def load_tokenizer(path: str | Path, revision: str | None = None) -> Any:
    """Load the tokenizer of a model from a folder or the hub.

    That of a GGUF file is what lies beside it, else what is in it; that of an adapter its own, else
    its base's.

    Raises ``InputError`` if there is nothing at ``path``, ``ModelError`` if it has no tokenizer or
    one that gives ids that the model's embedding does not have.
    """
    parts = adapted(path, revision)
    file = None if parts else gguf_file(Path(path))
    folder = file.parent if file else parts.tokenizer if parts else local_folder(path, revision)
    if file and not (folder / "tokenizer.json").is_file():
        with quiet_transformers():
            return load_gguf_tokenizer(file)
    if not file:
        check_tokenizer_fits(folder, model=parts.base if parts else folder)
    try:
        with quiet_transformers():
            return AutoTokenizer.from_pretrained(str(folder))
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


def _load_adapted(
    parts: Adapted, precision: Precision, device: torch.device, bits: Literal[4, 8] | None
) -> Any:
    if bits:
        raise ModelError(
            f"{parts.adapter}: is an adapter; merge it into its model first (biomistral merge, see "
            f"docs/merging.md) and name the result, to load that in {bits} bits"
        )
    model = load_model(parts.base, precision=precision, device=device)
    add_adapter(model, parts)
    return model


def _own_awq(folder: Path, precision: Precision, device: torch.device) -> Any:
    """Load an AWQ checkpoint without a library; None where that library serves better."""
    from biomistral.models.awq import layout_of, load_awq_model
    from biomistral.models.four_bit import load_four_bit_model
    from biomistral.models.hybrid import is_available

    with quiet_transformers():
        if device.type == "cpu" and precision == "bfloat16" and is_available():
            return load_four_bit_model(folder)
        stored = Checkpoint(folder).config["quantization_config"]
        only_ours = device.type == "cpu" and layout_of(stored) == "gemv"
        if only_ours or importlib.util.find_spec("gptqmodel") is None:
            return load_awq_model(folder, precision)
    return None


def _from_pretrained(
    folder: Path,
    precision: Precision,
    device: torch.device | None,
    bits: Literal[4, 8] | None = None,
) -> Any:
    """Load with Transformers; weights go straight to ``device`` if it is given."""
    load: Any = AutoModelForCausalLM.from_pretrained
    quantizing = {"quantization_config": _bitsandbytes(bits, precision)} if bits else {}
    try:
        with quiet_transformers():
            model, report = load(
                str(folder),
                # Given here and not cast later: a later cast would round the rotary frequencies.
                dtype=_DTYPES[precision],
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # to name them below
                **({"device_map": {"": device}} if device is not None else {}),
                **quantizing,
            )
    except ImportError as error:
        raise MissingDependencyError(
            f"{folder}: is quantized in a form that needs a library which is not installed "
            f"({_first_line(error)}); install it, or use the unquantized model"
        ) from error
    except _UNREADABLE as error:
        raise ModelError(
            f"{folder}: cannot be loaded as a causal language model ({_first_line(error)}); "
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
            f"{folder}: {problem} ({len(missing) + len(mismatched)} such in all), random numbers "
            "would stand in for it; fetch the checkpoint again"
        )
    return model


def _bitsandbytes(bits: Literal[4, 8], precision: Precision) -> Any:
    config: Any = BitsAndBytesConfig  # not typed by Transformers
    if bits == 8:
        return config(load_in_8bit=True)
    return config(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=_DTYPES[precision]
    )


def leave_weights_as_stored(model: Any) -> None:
    """Keep bitsandbytes (0.50) from repacking 4-bit weights in the first forward pass on a CPU.

    With AVX512-BF16 the repacked weights lose their gradients and, without double quantization, are
    saved wrong without a word.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _set_precision(model: Any, dtype: torch.dtype) -> None:
    """Give the plain weights of a bitsandbytes model a type; Transformers leaves them as stored.

    Weights only: the rotary frequencies are buffers and stay as they are.
    """
    for weight in model.parameters():
        if weight.is_floating_point():
            weight.data = weight.data.to(dtype)
    # Of which it says a line for every layer and token.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)


def num_weights(model: Any) -> int:
    """Numbers that a model's weights stand for, however few bits each has."""
    from biomistral.models.four_bit import StoredEmbedding
    from biomistral.models.hybrid import HybridLinear

    layers = [module for module in model.modules() if isinstance(module, HybridLinear)]
    packed: int = sum(layer.in_features * layer.out_features for layer in layers)
    plain: int = sum(
        # bitsandbytes keeps two weights in a byte, too, and remembers the shape.
        state.shape.numel() if (state := getattr(each, "quant_state", None)) else each.numel()
        for each in model.parameters()
    )
    mapped: int = sum(m.weight.numel() for m in model.modules() if isinstance(m, StoredEmbedding))
    return packed + plain + mapped


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".:") or type(error).__name__
