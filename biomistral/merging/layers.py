"""Which layer a tensor belongs to, read off its name; no architecture is known.

A *stack* is a row of layers, named by what stands before the number. Most models have one; those
with an encoder, or with a part for images, have several.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# Where the number of the layer stands in the names of Llama, GPT-2, BLOOM, MPT and their kin.
_LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks)\.(\d+)\.")
# Tensors that come before the layers; all others outside a stack (norm, head) come after them.
_BEFORE = re.compile(r"(?:^|\.)(?:\w*emb\w*|wte|wpe)\.")
_AFTER = re.compile(r"(?:^|\.)embed_out\.")


def split(name: str) -> tuple[str, int, str] | None:
    """Return stack, number of the layer and the rest of a name; None outside all layers."""
    match = _LAYER.search(name)
    if match is None:
        return None
    return name[: match.start(1)], int(match[1]), name[match.end(1) :]


def num_layers(names: Iterable[str]) -> dict[str, int]:
    """Number of layers of each stack."""
    counts: dict[str, int] = {}
    for name in names:
        if parts := split(name):
            counts[parts[0]] = max(counts.get(parts[0], 0), parts[1] + 1)
    return counts


def depth(layer: int, num_layers: int) -> float:
    """Place of a layer among its ``num_layers``, from 0 (first) to 1 (last); a single one is at 1."""
    return layer / (num_layers - 1) if num_layers > 1 else 1.0


def depths(names: Iterable[str]) -> dict[str, float]:
    """Depth of each tensor in its stack; those outside (embeddings, final norm, head) are at 0."""
    names = list(names)
    counts = num_layers(names)
    return {
        name: depth(parts[1], counts[parts[0]]) if (parts := split(name)) else 0.0 for name in names
    }


def comes_before_layers(name: str) -> bool:
    """Whether a tensor outside the layers is an embedding."""
    return _BEFORE.search(name) is not None and _AFTER.search(name) is None


def natural(name: str) -> list[tuple[int, str]]:
    """Sort key with numbers by value: ``layers.2`` before ``layers.10``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
