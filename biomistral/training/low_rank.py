"""A model and the adapter that is trained beside it, through PEFT.

The model is held in full, or quantized by bitsandbytes (QLoRA, arXiv 2305.14314), and is never
changed; the adapter is kept in float32. Knows nothing about data or losses.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import transformers
from torch import nn

from biomistral.artifacts import write_json
from biomistral.errors import ModelError, did_you_mean, require
from biomistral.models.adapters import ADAPTER_CONFIG
from biomistral.models.checkpoints import Checkpoint
from biomistral.models.hub import name_of
from biomistral.models.loading import Precision, load_model, quiet_transformers
from biomistral.recipe.tuning import TuningSettings
from biomistral.training.recomputing import recompute_activations


def load_learner(settings: TuningSettings, folder: Path, seed: int) -> Any:
    """Load what is trained: a model of which every weight is, or one with a new adapter.

    The first values of the adapter come from ``seed``. Raises ``MissingDependencyError`` without
    PEFT (or bitsandbytes), ``ModelError`` if the model is quantized already, or has no layer that
    is called like a target.
    """
    if settings.makes_adapter:
        require("peft", extra="training", purpose=f"training the adapter {settings.name}")
    _refuse_quantized(settings, folder)
    bits = settings.bits if settings.method == "qlora" else None
    in_bfloat16 = settings.precision == "mixed" and settings.makes_adapter
    precision: Precision = "bfloat16" if in_bfloat16 else "float32"
    model = load_model(folder, precision=precision, bits=bits)
    if settings.gradient_checkpointing:
        recompute_activations(model)
    return _with_adapter(settings, model, folder, seed) if settings.makes_adapter else model


def _refuse_quantized(settings: TuningSettings, folder: Path) -> None:
    quantization = Checkpoint(folder).config.get("quantization_config")
    if quantization:
        method = quantization.get("quant_method", "an unknown method")
        raise ModelError(
            f"{folder}: is quantized ({method}), and quantized weights cannot be trained "
            f"(method: {settings.method}); name the model that it was made of, which method: qlora "
            "holds in 8 or 4 bits while it trains an adapter"
        )


def _with_adapter(settings: TuningSettings, model: Any, folder: Path, seed: int) -> Any:
    with quiet_transformers(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks Transformers by old names
        import peft

        _check_targets(settings, model, folder)
        make: Any = peft.LoraConfig  # its alpha is typed as a whole number, and used as any
        transformers.set_seed(seed)
        return peft.get_peft_model(model, make(**_lora(settings)))


def _lora(settings: TuningSettings) -> dict[str, Any]:
    return {
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": getattr(settings, "dropout", 0.0),
        "target_modules": list(settings.target_names),
        "bias": "none",
        "task_type": "CAUSAL_LM",
    }


def _check_targets(settings: TuningSettings, model: Any, folder: Path) -> None:
    """Raise ``ModelError`` for a target that no linear layer of the model is called."""
    linear = {name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    kinds = sorted({name.rpartition(".")[-1] for name in linear})
    for target in settings.target_names:
        if not any(name == target or name.endswith(f".{target}") for name in linear):
            raise ModelError(
                f"{folder}: has no linear layer called {target!r}{did_you_mean(target, kinds)} "
                f"(there is: {', '.join(kinds) or 'none'}); set targets in the entry "
                f"{settings.name!r} to layers that the model has"
            )


def save_adapter(model: Any, base: Path, out: Path) -> None:
    """Write the adapter as PEFT does: weights and config, the same bytes wherever they are made."""
    # A folder's path is nobody's business, and not the same for everyone.
    for config in model.peft_config.values():
        config.base_model_name_or_path = name_of(base)
    with quiet_transformers():
        # Else PEFT asks the hub whether the embedding was resized.
        model.save_pretrained(out, save_embedding_layers=False)
    path = out / ADAPTER_CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    config["target_modules"] = sorted(config["target_modules"])  # PEFT keeps a set
    write_json(path, config)


def num_trained(model: Any) -> int:
    """Number of values that are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
