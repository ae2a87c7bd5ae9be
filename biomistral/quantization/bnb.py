"""Quantization with bitsandbytes: 8 bits (LLM.int8) or 4 bits (NF4), no calibration needed.

The library rounds each weight when Transformers loads it; what is saved is that, and any
Transformers with bitsandbytes loads it again.
Follows Dettmers et al., arXiv 2208.07339 (8 bits) and arXiv 2305.14314 (NF4, double quantization).
Knows nothing about tokenizers or cards.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean
from typing import Any, cast

from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from biomistral.errors import ModelError, require
from biomistral.models.checkpoints import Checkpoint
from biomistral.models.loading import leave_weights_as_stored, quiet_transformers
from biomistral.recipe.settings import BitsandbytesQuantization

_LARGEST_INT8 = 127


def load_quantized(settings: BitsandbytesQuantization, original: Checkpoint) -> PreTrainedModel:
    """Load a plain checkpoint, quantizing it on the way, on a GPU if there is one.

    What is not quantized (embeddings, norms, head) keeps its type, and the arithmetic is in it.
    Raises ``MissingDependencyError`` without bitsandbytes, ``ModelError`` if a weight is missing.
    """
    require("bitsandbytes", extra="quantization", purpose=f"Quantizing {settings.name}")
    load: Any = AutoModelForCausalLM.from_pretrained
    with quiet_transformers():
        model, report = load(
            original.folder,
            dtype="auto",
            quantization_config=_config(settings, original),
            output_loading_info=True,
        )
    if missing := sorted(report["missing_keys"]):
        raise ModelError(
            f"{original.folder}: lacks the weight {missing[0]} ({len(missing)} such in all); "
            "fetch the checkpoint again"
        )
    leave_weights_as_stored(model)
    return cast("PreTrainedModel", model)


def _config(settings: BitsandbytesQuantization, original: Checkpoint) -> Any:
    config_class: Any = BitsAndBytesConfig  # not typed by Transformers
    if settings.bits == 8:
        return config_class(load_in_8bit=True)
    dtype = original.config.get("dtype") or original.config.get("torch_dtype", "float32")
    return config_class(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=settings.double_quantization,
        bnb_4bit_compute_dtype=dtype,
    )


def weight_errors(model: PreTrainedModel, original: Checkpoint) -> dict[str, float]:
    """Relative error of the weights: kind of linear layer -> mean over the layers, a fraction."""
    errors: dict[str, list[float]] = {}
    for name, weight in _plain_weights(model):
        exact = original.tensor(f"{name}.weight").float().to(weight.device)
        relative = float((weight - exact).norm() / exact.norm())
        errors.setdefault(name.rpartition(".")[-1], []).append(relative)
    return {kind: fmean(found) for kind, found in sorted(errors.items())}


def _plain_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the name of each quantized layer and the weight that it now stands for, in float32."""
    import bitsandbytes

    layers: Any = bitsandbytes.nn
    for name, module in model.named_modules():
        weight: Any = getattr(module, "weight", None)
        if isinstance(module, layers.Linear4bit):
            plain = bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)
            yield name, plain.float()
        elif isinstance(module, layers.Linear8bitLt):
            yield name, weight.data.float() * weight.SCB.float()[:, None] / _LARGEST_INT8
