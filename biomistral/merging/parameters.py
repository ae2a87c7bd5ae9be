"""What a parameter of a merge is for one tensor, by the rules of mergekit's YAML.

A value counts for all tensors. A list of values is a gradient over depth: the first for the first
layer, the last for the last one, straight lines between (switches and choices: the one to the
left). A list of filters gives its first entry whose filter is part of the tensor's name. What a
parameter is set to on several levels is a chain: the first setting that says something counts.
Knows names and depths, no configurations and no weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from biomistral.errors import did_you_mean
from biomistral.merging.catalogue import Value


@dataclass(frozen=True, eq=False)
class Entry:
    """Values for the tensors whose name contains ``filter``; without one, for all the rest."""

    values: tuple[Value, ...]  # more than one: a gradient over depth
    filter: str | None = None

    def matches(self, name: str) -> bool:
        """Whether the entry speaks of a tensor."""
        return self.filter is None or self.filter == "*" or self.filter in name


@dataclass(frozen=True, eq=False)
class Setting:
    """What a parameter is set to in one place of a configuration."""

    where: str  # that place, such as models[1].parameters.density
    entries: tuple[Entry, ...]

    @property
    def values(self) -> tuple[Value, ...]:
        """All values that are written there."""
        return tuple(value for entry in self.entries for value in entry.values)

    @property
    def longest_gradient(self) -> int:
        """Number of values of the longest list."""
        return max(len(entry.values) for entry in self.entries)


def constant(value: Value, where: str = "") -> Setting:
    """A setting that is the same for all tensors."""
    return Setting(where, (Entry((value,)),))


def resolve(
    chain: Sequence[Setting], depths: Mapping[str, float]
) -> tuple[dict[str, Value], set[Entry]]:
    """Return the value for each tensor that a setting speaks of, and the entries that decided.

    ``depths`` has the place of each tensor in its stack of layers, from 0 (first) to 1 (last).
    """
    entries = [entry for setting in chain for entry in setting.entries]
    values: dict[str, Value] = {}
    used: set[Entry] = set()
    for name, depth in depths.items():
        entry = next((entry for entry in entries if entry.matches(name)), None)
        if entry is not None:
            values[name] = at(entry.values, depth)
            used.add(entry)
    return values, used


def at(values: Sequence[Value], depth: float) -> Value:
    """Read a gradient at a depth in [0, 1]: linear between the two numbers beside it."""
    place = depth * (len(values) - 1)
    left = min(int(place), max(len(values) - 2, 0))
    right = min(left + 1, len(values) - 1)
    fraction = place - left
    first, second = values[left], values[right]
    if isinstance(first, bool | str) or isinstance(second, bool | str):
        return values[int(place)]
    return float(first) if left == right else (1.0 - fraction) * first + fraction * second


def unmatched(chain: Sequence[Setting], names: Sequence[str]) -> str:
    """Say that no filter of a chain matches these tensors."""
    others = f" and {len(names) - 1} more tensors" if len(names) > 1 else ""
    return (
        f"{chain[-1].where}: no filter matches {names[0]!r}{others}; "
        "add a last entry without a filter, which counts for all the rest"
    )


def unused(
    settings: Iterable[Setting], used: set[Entry], names: Iterable[str], absent: Sequence[str] = ()
) -> list[str]:
    """Say which filters decide on no tensor, unless they are of a tensor known to be ``absent``."""
    parts = sorted({part for name in names for part in name.split(".")})
    return [
        f"{setting.where}: the filter {entry.filter!r} has no effect: it matches no tensor that "
        f"an earlier entry leaves{did_you_mean(entry.filter, parts)}"
        for setting in settings
        for entry in setting.entries
        if entry.filter is not None and entry.filter != "*" and entry not in used
        if not any(entry.matches(name) for name in absent)
    ]
