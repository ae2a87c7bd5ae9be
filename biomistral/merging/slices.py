"""Which tensors of the models become which tensor of the output, when layers are put together.

The layers of the output are numbered through. As in mergekit, what comes before the layers is made
like the first slice, what comes after them like the last one, and both are at depth 0 of a
gradient. Knows names and configs, no shapes, values or parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from biomistral.merging import layers
from biomistral.merging.configuration import MergeConfig, Slice, Source

# The number of layers in the configs of Llama and its kin, of GPT-2 and BLOOM, of others.
_COUNT_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")


@dataclass(frozen=True)
class Placed:
    """One tensor of the output and where it comes from."""

    name: str
    place: Slice
    depth: float  # in the slice, 0 to 1
    sources: tuple[str, ...]  # its name in each of ``place.inputs``, there or not
    is_in_donor: bool = True  # or should be, by the same name


def arrange(
    config: MergeConfig, names: Mapping[str, Sequence[str]]
) -> tuple[list[Placed], list[str]]:
    """Return all tensors of the output in natural order, and the problems met, in words.

    ``names`` has the tensors of each model of the merge.
    """
    if is_whole(config, names):
        return _arrange_whole(config, names), []
    stacks = {model: layers.num_layers(own) for model, own in names.items()}
    if problems := [*_stack_problems(stacks), *_range_problems(config, stacks)]:
        return [], problems
    endings = {model: _endings(own) for model, own in names.items()}
    placed: list[Placed] = []
    for place, start in zip(config.slices, _starts(config, stacks), strict=True):
        for offset in range(num_layers(place, names)):
            placed += _layer(place, offset, start, endings)
    placed += _outside(config.slices[0], names, before=True)
    placed += _outside(config.slices[-1], names, before=False)
    return sorted(placed, key=lambda tensor: layers.natural(tensor.name)), []


def is_whole(config: MergeConfig, names: Mapping[str, Sequence[str]]) -> bool:
    """Whether all layers of all models stay where they are."""
    return len(config.slices) == 1 and all(
        source.layers
        in {None, (0, max(layers.num_layers(names[source.model]).values(), default=0))}
        for source in config.slices[0].inputs
    )


def num_layers(place: Slice, names: Mapping[str, Sequence[str]]) -> int:
    """Number of layers of a slice; of the longest stack, if it is a whole model of several."""
    source = place.inputs[0]
    if source.layers is not None:
        return source.layers[1] - source.layers[0]
    return max(layers.num_layers(names[source.model]).values(), default=0)


def _arrange_whole(config: MergeConfig, names: Mapping[str, Sequence[str]]) -> list[Placed]:
    (place,) = config.slices
    models = dict.fromkeys([config.donor, *(source.model for source in place.inputs)])
    every = dict.fromkeys(name for model in models for name in names[model])
    return [
        Placed(name, place, depth, (name,) * len(place.inputs))
        for name, depth in layers.depths(every).items()
    ]


# What follows the number in the names of a layer, with the stack before it, by layer.
_Endings = Mapping[int, Sequence[tuple[str, str]]]


def _endings(names: Sequence[str]) -> _Endings:
    by_layer: dict[int, list[tuple[str, str]]] = {}
    for parts in filter(None, map(layers.split, names)):
        by_layer.setdefault(parts[1], []).append((parts[0], parts[2]))
    return by_layer


def _layer(
    place: Slice, offset: int, start: int, endings: Mapping[str, _Endings]
) -> Iterable[Placed]:
    """Yield the tensors of one layer of a slice, be they in all models or in some."""
    ranges = [source.layers or (0, len(endings[source.model])) for source in place.inputs]
    first, end = ranges[0]
    found = dict.fromkeys(
        ending
        for source, (own, _) in zip(place.inputs, ranges, strict=True)
        for ending in endings[source.model].get(own + offset, ())
    )
    for stack, ending in found:
        yield Placed(
            f"{stack}{start + offset}{ending}",
            place,
            layers.depth(offset, end - first),
            tuple(f"{stack}{own + offset}{ending}" for own, _ in ranges),
            is_in_donor=False,
        )


def _outside(place: Slice, names: Mapping[str, Sequence[str]], *, before: bool) -> Iterable[Placed]:
    """Return the tensors before or after all layers."""
    every = dict.fromkeys(name for source in place.inputs for name in names[source.model])
    for name in every:
        if layers.split(name) is None and layers.comes_before_layers(name) == before:
            yield Placed(name, place, 0.0, (name,) * len(place.inputs))


def _starts(config: MergeConfig, stacks: Mapping[str, Mapping[str, int]]) -> list[int]:
    """Number of the first layer of each slice in the output."""
    starts = [0]
    for place in config.slices:
        first, end = _range(place.inputs[0], stacks)
        starts.append(starts[-1] + end - first)
    return starts[:-1]


def _range(source: Source, stacks: Mapping[str, Mapping[str, int]]) -> tuple[int, int]:
    return source.layers or (0, next(iter(stacks[source.model].values())))


def _stack_problems(stacks: Mapping[str, Mapping[str, int]]) -> Iterable[str]:
    for model, counts in stacks.items():
        if len(counts) != 1:
            listed = ", ".join(f"{stack}* ({count})" for stack, count in counts.items()) or "none"
            yield (
                f"{model} has {len(counts)} stacks of layers ({listed}); layers can be put together "
                "only for models that have exactly one"
            )
    if len(found := {next(iter(counts)) for counts in stacks.values() if len(counts) == 1}) > 1:
        yield f"the layers have different names ({' and '.join(sorted(found))}) in these models"


def _range_problems(config: MergeConfig, stacks: Mapping[str, Mapping[str, int]]) -> Iterable[str]:
    for place in config.slices:
        for source in place.inputs:
            count = max(stacks[source.model].values(), default=0)
            if source.layers is not None and count and source.layers[1] > count:
                yield (
                    f"{source.where}: layers {list(source.layers)} are outside {source.model}, "
                    f"which has {count} layers: at most [0, {count}]"
                )


# --- the config of the output ---------------------------------------------------------------------


def layered_config(
    donor: Mapping[str, Any],
    configs: Mapping[str, Mapping[str, Any]],
    config: MergeConfig,
    names: Mapping[str, Sequence[str]],
) -> tuple[dict[str, Any], list[str]]:
    """Return the donor's config with the layers of the output, and the problems met, in words.

    Lists that say something of each layer (``layer_types``) follow the layers.
    """
    changed = dict(donor)
    if is_whole(config, names):
        return changed, []
    keys = [key for key in _COUNT_KEYS if key in donor]
    if not keys:
        listed = ", ".join(_COUNT_KEYS)
        return changed, [f"the config of {config.donor} has no number of layers ({listed})"]
    total = sum(num_layers(place, names) for place in config.slices)
    changed.update(dict.fromkeys(keys, total))
    for key in [key for key, value in donor.items() if "layer" in key and isinstance(value, list)]:
        if len(donor[key]) != donor[keys[0]]:
            continue
        items: list[Any] = []
        for place in config.slices:
            source = place.inputs[0]
            start = source.layers[0] if source.layers else 0
            theirs = configs[source.model].get(key, donor[key])
            items += theirs[start : start + num_layers(place, names)]
        changed[key] = items
    return changed, []
