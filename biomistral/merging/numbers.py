"""The numbers of a merge: what each parameter is for each tensor of each model.

Finds everything in them that cannot be meant, and everything that changes nothing. Knows names and
depths of tensors, no values and no shapes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from biomistral.merging.catalogue import Parameter, Value
from biomistral.merging.configuration import MergeConfig, Slice, Source
from biomistral.merging.parameters import Entry, Setting, resolve, unmatched, unused
from biomistral.merging.references import shown
from biomistral.merging.slices import Placed

# Sums of weights below this count as zero, as in methods.
_TINY = 1e-8

Numbers = dict[str, Value]  # by field


@dataclass
class Resolved:
    """Numbers by name of the output tensor; of models in the order of its ``place.sources``."""

    options: dict[str, Numbers] = field(default_factory=dict)
    of_models: dict[str, list[Numbers]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def settle(
    config: MergeConfig, placed: Sequence[Placed], lengths: Mapping[str, int], absent: Sequence[str]
) -> Resolved:
    """Resolve every parameter for every tensor.

    ``lengths`` has the number of layers of each slice, ``absent`` the names of tensors that models
    have and the output has not.
    """
    found = Resolved()
    used: set[Entry] = set()
    for place in config.slices:
        own = [tensor for tensor in placed if tensor.place is place]
        used |= _settle_slice(config, place, own, lengths[place.where], found)
    names = [tensor.name for tensor in placed]
    found.problems += unused(config.all_settings(), used, names, absent)
    if not found.problems:
        _check(config, placed, found)
    return found


def _settle_slice(
    config: MergeConfig, place: Slice, placed: Sequence[Placed], length: int, found: Resolved
) -> set[Entry]:
    """Resolve the parameters of one slice into ``found``; return the entries that decided."""
    used: set[Entry] = set()
    outputs = {tensor.name: tensor.depth for tensor in placed}
    for tensor in placed:
        found.options[tensor.name] = {}
        found.of_models[tensor.name] = [{} for _ in place.sources]
    for parameter in config.rules.per_merge:
        chain = config.chain(parameter, place)
        values = _values(parameter, chain, outputs, length, found, used)
        for name, value in values.items():
            found.options[name][parameter.field] = value
    has_base = place.base is not None
    for index, source in enumerate(place.sources):
        inputs = {tensor.sources[index + has_base]: tensor.depth for tensor in placed}
        for parameter in config.rules.per_model:
            chain = config.chain(parameter, place, source)
            values = _values(parameter, chain, inputs, length, found, used)
            for tensor in placed:
                value = values[tensor.sources[index + has_base]]
                found.of_models[tensor.name][index][parameter.field] = value
    return used


def _values(
    parameter: Parameter,
    chain: Sequence[Setting],
    depths: Mapping[str, float],
    length: int,
    found: Resolved,
    used: set[Entry],
) -> dict[str, Value]:
    """Resolve one parameter for all tensors of a slice; note what is wrong with it."""
    for setting in chain:
        if setting.longest_gradient > max(length, 1):
            problem = (
                f"{setting.where}: a gradient of {setting.longest_gradient} values over {length} "
                "layers; give at most one value a layer"
            )
            found.problems += [problem] if problem not in found.problems else []
    values, deciding = resolve(chain, depths)
    used |= deciding
    default = parameter.default
    if missing := [name for name in depths if name not in values]:
        if default is None:
            found.problems.append(unmatched(chain, missing))
        elif chain:
            found.warnings.append(
                f"{chain[-1].where}: no filter matches {missing[0]!r} (one of {len(missing)}); "
                f"{parameter.key} is {default} there"
            )
    return {name: values.get(name, 0.0 if default is None else default) for name in depths}


# --- what cannot be meant, and what changes nothing -----------------------------------------------


def _check(config: MergeConfig, placed: Sequence[Placed], found: Resolved) -> None:
    """Look for weights that cancel out and windows that do not fit around the density."""
    for tensor in placed:
        options, of_models = found.options[tensor.name], found.of_models[tensor.name]
        problem = _zero_sum(config, options, of_models) or _bad_window(of_models)
        if problem:
            found.problems.append(f"{tensor.name}: {problem}")
            return


def _zero_sum(config: MergeConfig, options: Numbers, of_models: Sequence[Numbers]) -> str:
    divides = options.get("normalize") if config.method == "linear" else None
    divides = options.get("normalize_weights", divides)
    total = sum(float(numbers.get("weight", 1.0)) for numbers in of_models)
    if not divides or abs(total) >= _TINY:
        return ""
    return (
        "the weights sum to 0, and normalize divides by their sum; change the weights or set "
        "normalize: false"
    )


def _bad_window(of_models: Sequence[Numbers]) -> str:
    """DELLA's chances have to be chances."""
    for numbers in of_models:
        density, epsilon = float(numbers.get("density", 1.0)), float(numbers.get("epsilon", 0.0))
        if density < 1 and epsilon and not epsilon < density < 1 - epsilon:
            return (
                f"density {density:g} with epsilon {epsilon:g} gives chances from "
                f"{density - epsilon:g} to {density + epsilon:g}; density - epsilon must be above "
                "0 and density + epsilon below 1: take a smaller epsilon"
            )
    return ""


def without_effect(config: MergeConfig, placed: Sequence[Placed], found: Resolved) -> Iterator[str]:
    """Say which numbers of the merge change nothing."""
    for place in config.slices:
        names = [tensor.name for tensor in placed if tensor.place is place]
        options = [found.options[name] for name in names]
        for index, source in enumerate(place.sources):
            numbers = [found.of_models[name][index] for name in names]
            yield from _forgotten_weight(place, source, numbers, options)
            yield from _sparsity_without_effect(config, source, numbers)
        if len(place.sources) == 1 and any(float(o.get("select_topk", 1)) < 1 for o in options):
            yield "select_topk below 1 with one model: its elements do not vary, so none changes"


def _forgotten_weight(
    place: Slice, source: Source, numbers: Sequence[Numbers], options: Sequence[Numbers]
) -> Iterator[str]:
    alone = len(place.sources) == 1
    divided = alone and all(each.get("normalize", False) for each in options)
    if divided and any(each.get("weight", 1.0) != 1.0 for each in numbers):
        yield (
            f"the weight of {shown(source.model)} has no effect: with one model, normalize divides "
            "by it again; set normalize: false, or use scale (lambda)"
        )


def _sparsity_without_effect(
    config: MergeConfig, source: Source, numbers: Sequence[Numbers]
) -> Iterator[str]:
    sparse: Collection[str] = {parameter.field for parameter in config.rules.per_model}
    if "density" not in sparse or config.method == "ties":
        return
    if all(each["density"] == 1 for each in numbers):
        yield f"density 1 of {shown(source.model)}: {config.method} drops nothing from it"
    elif any(float(n["density"]) + float(n.get("gamma", 0.0)) > 1 for n in numbers):
        yield (
            f"gamma of {shown(source.model)} is more than its density leaves over: only 1 - density "
            "of the largest elements are dropped"
        )
