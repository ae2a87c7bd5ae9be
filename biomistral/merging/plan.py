"""What a merge is going to do, decided from configs and headers before a weight is read.

Everything that can be refused beforehand is refused here: models that do not fit each other,
parameters that do not fit the model, quantized inputs. Knows nothing about arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biomistral.errors import ModelError, RecipeError, did_you_mean
from biomistral.merging.parameters import resolve
from biomistral.models.checkpoints import Checkpoint, check_tokenizer_fits
from biomistral.models.safetensors_files import TensorSpec
from biomistral.recipe.settings import MergeSettings, Parameter, WeightedInput

_MERGEABLE = ("float64", "float32", "float16", "bfloat16")
# Settings of a model that decide what its tensors mean; equal wherever both models name them.
_DEFINING = (
    "model_type",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "tie_word_embeddings",
)
_NAMED_DIFFERENCES = 4


@dataclass(frozen=True)
class Plan:
    """A merge whose inputs fit. Values by tensor name; lists in the order of ``models``."""

    settings: MergeSettings
    base: Checkpoint
    models: list[Checkpoint]
    weights: list[dict[str, float]]
    densities: list[dict[str, float]]
    t: dict[str, float] | None  # of SLERP
    outputs: list[TensorSpec]
    warnings: list[str]


def find_folders(settings: MergeSettings, models: Mapping[str, Path] | None) -> dict[str, Path]:
    """Return the folder of each model that ``settings`` names, base first.

    Without ``models`` the names are folders themselves. Raises ``RecipeError`` for unknown names.
    """
    names = dict.fromkeys([base_name(settings), *(entry.model for entry in settings.models)])
    if models is None:
        return {name: Path(name) for name in names}
    if unknown := [name for name in names if name not in models]:
        problems = [f"unknown model {name!r}{did_you_mean(name, models)}" for name in unknown]
        raise RecipeError(f"merge {settings.name}", problems)
    return {name: models[name] for name in names}


def base_name(settings: MergeSettings) -> str:
    """Return the model that gives config and tokenizer: the base, or the first of the models."""
    return settings.base or settings.models[0].model


def shown(name: str) -> str:
    """Return the name of a model, or the last part if it is a path: the rest is nobody's business."""
    return Path(name).name


def plan_merge(settings: MergeSettings, folders: Mapping[str, Path]) -> Plan:
    """Open all models and settle every number of the merge.

    Raises ``ModelError`` if a model is broken or does not fit the base, ``RecipeError`` if a
    parameter does not fit the model's tensors.
    """
    opened = {name: Checkpoint(folder) for name, folder in folders.items()}
    base = opened[base_name(settings)]
    for checkpoint in opened.values():
        _check_mergeable(checkpoint)
        _check_same_shape(base, checkpoint)
    check_tokenizer_fits(base.folder)
    weights, densities, t = _numbers(settings, list(base.tensors))
    return Plan(
        settings=settings,
        base=base,
        models=[opened[entry.model] for entry in settings.models],
        weights=weights,
        densities=densities,
        t=t,
        outputs=[
            TensorSpec(s.name, s.shape, settings.dtype or s.dtype) for s in base.tensors.values()
        ],
        warnings=[*_without_effect(settings, densities), *_doubts(base, list(opened.values()))],
    )


# --- numbers --------------------------------------------------------------------------------------


def _numbers(
    settings: MergeSettings, names: Sequence[str]
) -> tuple[list[dict[str, float]], list[dict[str, float]], dict[str, float] | None]:
    """Resolve weights, densities and t for every tensor; all problems in one ``RecipeError``."""
    problems: list[str] = []

    def values(label: str, parameter: Parameter) -> dict[str, float]:
        resolved, found = resolve(parameter, names)
        problems.extend(f"{label}: {problem}" for problem in found)
        return resolved

    weights = [
        values(f"weight of {entry.model}", getattr(entry, "weight", 1.0))
        for entry in settings.models
    ]
    densities = [
        values(f"density of {entry.model}", getattr(entry, "density", 1.0))
        for entry in settings.models
    ]
    t = values("t", settings.t) if settings.method == "slerp" else None
    if settings.method == "linear" and settings.normalize and not problems:
        zero = [name for name in names if abs(sum(each[name] for each in weights)) < 1e-8]
        if zero:
            problems.append(
                f"the weights for {zero[0]!r} sum to 0, and normalize divides by their sum; "
                "change the weights or set normalize: false"
            )
    if problems:
        raise RecipeError(f"merge {settings.name}", problems)
    return weights, densities, t


def _without_effect(
    settings: MergeSettings, densities: Sequence[Mapping[str, float]]
) -> Iterator[str]:
    """Say which options of the merge change nothing."""
    if settings.method in {"linear", "slerp"}:
        return
    only = settings.models[0]
    forgets = settings.method != "slerp" and settings.normalize and len(settings.models) == 1
    if forgets and isinstance(only, WeightedInput) and only.weight != 1:
        yield (
            f"the weight of {shown(only.model)} has no effect: with one model, normalize divides "
            "by it again; set normalize: false, or use scale"
        )
    for entry, density in zip(settings.models, densities, strict=True):
        drops_nothing = all(value == 1 for value in density.values())
        if entry.model == settings.base:
            yield f"{shown(entry.model)} is the base itself: its task vector is zero"
        elif settings.method.startswith("dare") and drops_nothing:
            yield f"density 1 of {shown(entry.model)}: {settings.method} drops nothing from it"


# --- do the models fit ----------------------------------------------------------------------------


def _check_mergeable(checkpoint: Checkpoint) -> None:
    remedy = "merge the models in full precision first, and quantize the result"
    if checkpoint.config.get("quantization_config"):
        raise ModelError(f"{checkpoint.folder}: is quantized and cannot be merged; {remedy}")
    for tensor in checkpoint.tensors.values():
        if tensor.dtype not in _MERGEABLE:
            raise ModelError(
                f"{tensor.file}: {tensor.name} is of type {tensor.dtype}; merging takes float64, float32, "
                f"float16 and bfloat16; {remedy}"
            )


def _check_same_shape(base: Checkpoint, other: Checkpoint) -> None:
    """Raise one ``ModelError`` that names the first differences of ``other`` to ``base``."""
    differences = [
        f"{key} is {other.config[key]!r} instead of {base.config[key]!r}"
        for key in _DEFINING
        if None not in (base.config.get(key), other.config.get(key))
        and base.config[key] != other.config[key]
    ]
    for name in dict.fromkeys([*base.tensors, *other.tensors]):
        shape, wanted = _shape(other, name), _shape(base, name)
        if shape != wanted:
            differences.append(f"{name} is {shape} instead of {wanted}")
    if differences:
        more = len(differences) - _NAMED_DIFFERENCES
        raise ModelError(
            f"{other.folder}: does not fit {base.folder}: "
            + "; ".join(differences[:_NAMED_DIFFERENCES])
            + (f"; and {more} more differences" if more > 0 else "")
            + ". Merging needs models of one architecture and one vocabulary; if only the "
            "embeddings differ, give all models the same rows (model.resize_token_embeddings), "
            "if only lm_head is missing, save all models with the same tie_word_embeddings"
        )


def _shape(checkpoint: Checkpoint, name: str) -> str:
    tensor = checkpoint.tensors.get(name)
    return "missing" if tensor is None else str(list(tensor.shape))


def _doubts(base: Checkpoint, models: Sequence[Checkpoint]) -> Iterator[str]:
    """Say what fits by shape and yet may not belong together."""
    for model in models:
        ours, theirs = _rope_theta(base.config), _rope_theta(model.config)
        if ours is not None and theirs is not None and ours != theirs:
            yield (
                f"{model.folder.name} was trained with rope_theta {theirs:g}, {base.folder.name} "
                f"with {ours:g}: the merged attention may be worth little"
            )


def _rope_theta(config: Mapping[str, Any]) -> float | None:
    """Base of the rotary frequencies, in the config of Transformers 4 or 5."""
    theta = config.get("rope_theta", (config.get("rope_parameters") or {}).get("rope_theta"))
    return float(theta) if isinstance(theta, int | float) else None
