"""Whether models fit together: what is refused before a weight is read, and what may be a mistake.

Knows configs and headers, no values, no methods and no parameters.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from biomistral.errors import ModelError
from biomistral.merging.references import shown
from biomistral.merging.slices import Placed
from biomistral.models.checkpoints import HEADS, Checkpoint
from biomistral.models.hub import name_of

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
_TIED, _VOCABULARY = "tie_word_embeddings", "vocab_size"
_NAMED_DIFFERENCES = 4
# Rotary frequencies of old Llama files, causal masks of GPT-2's: computed when a model is loaded.
_BUFFER = re.compile(r"rotary_emb\.inv_freq$|\.attn\.(masked_)?bias$|\.attention\.(masked_)?bias$")


def check_mergeable(checkpoint: Checkpoint) -> None:
    """Raise ``ModelError`` if a model is quantized or holds something else than numbers."""
    remedy = "merge the models in full precision first, and quantize the result"
    if checkpoint.config.get("quantization_config"):
        raise ModelError(f"{checkpoint.folder}: is quantized and cannot be merged; {remedy}")
    for tensor in checkpoint.tensors.values():
        if tensor.dtype not in _MERGEABLE and not _BUFFER.search(tensor.name):
            raise ModelError(
                f"{tensor.file}: {tensor.name} is of type {tensor.dtype}; merging takes float64, float32, "
                f"float16 and bfloat16; {remedy}"
            )


def left_out(models: Mapping[str, Checkpoint], donor: str) -> dict[str, list[str]]:
    """Return the stored tensors that Transformers does not load either, by model.

    These are heads that the config ties to the embedding, and buffers that older versions stored.
    """
    tied = bool(models[donor].config.get(_TIED))
    found = {
        model: [
            name
            for name in checkpoint.tensors
            if (tied and name.endswith(HEADS)) or _BUFFER.search(name)
        ]
        for model, checkpoint in models.items()
    }
    return {model: names for model, names in found.items() if names}


def check_fit(
    models: Mapping[str, Checkpoint],
    donor: str,
    placed: Sequence[Placed],
    free: Collection[str],
) -> None:
    """Raise one ``ModelError`` that names the first differences of a model to the donor.

    ``free`` are what need not be equal: keys of the config, and tensors that get other rows.
    """
    differences = {model: _config_differences(models, donor, model, free) for model in models}
    for tensor in placed:
        for model, difference in _shape_differences(models, donor, tensor, free):
            if difference not in differences[model]:
                differences[model].append(difference)
    for model, found in differences.items():
        if found:
            raise _unfit(models[model], models[donor], found)


def _config_differences(
    models: Mapping[str, Checkpoint], donor: str, model: str, free: Collection[str]
) -> list[str]:
    ours, theirs = models[donor].config, models[model].config
    return [
        f"{key} is {theirs[key]!r} instead of {ours[key]!r}"
        for key in _DEFINING
        if key not in free and None not in (ours.get(key), theirs.get(key))
        if ours[key] != theirs[key]
    ]


def _shape_differences(
    models: Mapping[str, Checkpoint], donor: str, tensor: Placed, free: Collection[str]
) -> Iterator[tuple[str, str]]:
    """Yield each model that has not the shape of the first one, which is the donor if it can be."""
    inputs = tensor.place.inputs
    names = dict(zip((source.model for source in inputs), tensor.sources, strict=True))
    if tensor.is_in_donor:
        names = {donor: tensor.name, **names}
    first = donor if donor in names else inputs[0].model
    wanted = _shape(models[first], names[first], tensor.name in free)
    for model, name in names.items():
        shape = _shape(models[model], name, tensor.name in free)
        if shape != wanted:
            instead = "" if names[first] == name else f" (as {names[first]} of {shown(first)})"
            yield model, f"{name} is {shape} instead of {wanted}{instead}"


def _shape(checkpoint: Checkpoint, name: str, rows_are_free: bool) -> str:  # noqa: FBT001
    tensor = checkpoint.tensors.get(name)
    if tensor is None:
        return "missing"
    return f"[any, {list(tensor.shape[1:])}]" if rows_are_free else str(list(tensor.shape))


def _unfit(model: Checkpoint, donor: Checkpoint, differences: Sequence[str]) -> ModelError:
    more = len(differences) - _NAMED_DIFFERENCES
    return ModelError(
        f"{model.folder}: does not fit {donor.folder}: "
        + "; ".join(differences[:_NAMED_DIFFERENCES])
        + (f"; and {more} more differences" if more > 0 else "")
        + ". Merging needs models of one architecture and one vocabulary; "
        + _remedy(model, donor, differences)
    )


def _remedy(model: Checkpoint, donor: Checkpoint, differences: Sequence[str]) -> str:
    ours, theirs = donor.embedding_rows(), model.embedding_rows()
    only_tying = all(d.startswith(_TIED) or _is_head(d) for d in differences)
    if only_tying:
        return (
            "only the tying of lm_head to the embedding differs: save both models with the same "
            "tie_word_embeddings (untie by copying the embedding to lm_head.weight)"
        )
    if ours != theirs and all(
        d.startswith(_VOCABULARY) or f"is [{theirs}, " in d for d in differences
    ):
        return (
            "only the vocabularies differ: let the rows follow the tokenizers with "
            "tokenizer_source: base (or union), or resize the embeddings "
            "(model.resize_token_embeddings)"
        )
    return "name models of one family and size, such as trainings of one base"


def _is_head(difference: str) -> bool:
    return difference.partition(" ")[0].endswith(HEADS) and "missing" in difference


def without_own_code(config: Mapping[str, Any], name: str) -> tuple[dict[str, Any], list[str]]:
    """Return a config that asks for no Python file that is not there, and what to warn of.

    ``auto_map`` names code beside the weights, and code is not copied. Where Transformers knows the
    model type it is not needed; elsewhere it stays, for the model cannot be loaded without it.
    """
    named = config.get("auto_map")
    if not named:
        return dict(config), []
    from transformers import CONFIG_MAPPING

    if config.get("model_type") in CONFIG_MAPPING:
        left = {key: value for key, value in config.items() if key != "auto_map"}
        warning = (
            f"the config of {shown(name)} names code of its own (auto_map), which is left out: "
            f"Transformers has {config['model_type']} itself"
        )
        return left, [warning]
    values = named.values() if isinstance(named, dict) else ()
    parts = {str(value).partition("--")[2] or str(value) for value in values}
    files = ", ".join(sorted({f"{part.partition('.')[0]}.py" for part in parts})) or "its files"
    warning = (
        f"the config of {shown(name)} names code of its own, which does not come along: copy "
        f"{files} into the output if you trust it"
    )
    return dict(config), [warning]


def doubts(models: Mapping[str, Checkpoint], donor: str) -> Iterator[str]:
    """Say what fits by shape and yet may not belong together."""
    base = models[donor]
    ours = _rope_theta(base.config)
    for model in models.values():
        theirs = _rope_theta(model.config)
        if ours is not None and theirs is not None and ours != theirs:
            yield (
                f"{name_of(model.folder)} was trained with rope_theta {theirs:g}, {name_of(base.folder)} "
                f"with {ours:g}: the merged attention may be worth little"
            )


def _rope_theta(config: Mapping[str, Any]) -> float | None:
    """Base of the rotary frequencies, in the config of Transformers 4 or 5."""
    nested = config.get("rope_parameters")
    theta = config.get("rope_theta", nested.get("rope_theta") if isinstance(nested, dict) else None)
    return float(theta) if isinstance(theta, int | float) else None
