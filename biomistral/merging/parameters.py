"""What a parameter of a recipe is for one tensor, by the rules of mergekit's YAML.

A number counts for all tensors. A list of numbers is a gradient over depth: the first for the
first layer, the last for the last one, straight lines between. A list of filters gives its first
entry whose filter is part of the tensor's name. Knows names and numbers of layers, no weights.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence

from biomistral.errors import did_you_mean
from biomistral.recipe.settings import FilteredValue, Parameter

# Where the number of the layer stands in the names of Llama, GPT-2, BLOOM, MPT and their kin.
_LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks)\.(\d+)\.")


def resolve(parameter: Parameter, names: Sequence[str]) -> tuple[dict[str, float], list[str]]:
    """Return the value of ``parameter`` for each tensor name, and the problems met, in words.

    Problems are an empty list, a tensor that no filter matches, and a filter that decides on none.
    """
    entries = _entries(parameter)
    if not entries or any(entry.value == [] for entry in entries):
        return {}, ["a list is empty; give a number or a list of numbers"]
    chosen = {name: _first_match(entries, name) for name in names}
    values = {
        name: _at(entries[index].value, depth)
        for name, depth in depths(names).items()
        if (index := chosen[name]) is not None
    }
    return values, _unmatched(chosen) + _unused(entries, chosen)


def _entries(parameter: Parameter) -> list[FilteredValue]:
    """Write any parameter as a list of filters; a plain value is one entry that matches all."""
    if isinstance(parameter, list):
        entries = [entry for entry in parameter if isinstance(entry, FilteredValue)]
        if entries or not parameter:
            return entries
        parameter = [entry for entry in parameter if not isinstance(entry, FilteredValue)]
    return [FilteredValue(filter=None, value=parameter)]


def depths(names: Iterable[str]) -> dict[str, float]:
    """Place of each tensor in the stack of layers, from 0 (first) to 1 (last layer).

    A single layer is at 1; tensors outside the stack (embeddings, final norm, head) are at 0.
    """
    layers = {name: int(m[1]) if (m := _LAYER.search(name)) else None for name in names}
    last = max((layer for layer in layers.values() if layer is not None), default=0)
    return {
        name: 0.0 if layer is None else layer / last if last else 1.0
        for name, layer in layers.items()
    }


def _at(value: float | list[float], depth: float) -> float:
    """Read a gradient at a depth in [0, 1]: linear between the two numbers beside it."""
    if not isinstance(value, list):
        return float(value)
    place = depth * (len(value) - 1)
    left = min(int(place), max(len(value) - 2, 0))
    right = min(left + 1, len(value) - 1)
    fraction = place - left
    return (1.0 - fraction) * value[left] + fraction * value[right]


def _first_match(entries: Sequence[FilteredValue], name: str) -> int | None:
    for index, entry in enumerate(entries):
        if entry.filter is None or entry.filter == "*" or entry.filter in name:
            return index
    return None


def _unmatched(chosen: dict[str, int | None]) -> list[str]:
    names = [name for name, index in chosen.items() if index is None]
    if not names:
        return []
    others = f" and {len(names) - 1} more tensors" if len(names) > 1 else ""
    remedy = "add a last entry without a filter, which counts for all the rest"
    return [f"no filter matches {names[0]!r}{others}; {remedy}"]


def _unused(entries: Sequence[FilteredValue], chosen: dict[str, int | None]) -> list[str]:
    parts = sorted(set(itertools.chain.from_iterable(name.split(".") for name in chosen)))
    unused = set(range(len(entries))) - set(chosen.values())
    return [
        f"the filter {entries[index].filter!r} has no effect: it matches no tensor that an "
        f"earlier entry leaves{did_you_mean(entries[index].filter or '', parts)}"
        for index in sorted(unused)
    ]
