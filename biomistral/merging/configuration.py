"""What a merge is asked to be, whether by mergekit's YAML or by a recipe.

Everything is in one form here: slices of layers, each with the models that go into it, and chains
of settings for each parameter. Which numbers these are for a tensor is settled by ``plan``, once
the models are known. Knows nothing about files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biomistral.merging.catalogue import METHODS, Method, Parameter
from biomistral.merging.parameters import Entry, Setting
from biomistral.merging.references import Part, Reference, parse_reference

if TYPE_CHECKING:
    from biomistral.recipe.settings import MergeSettings

# What the parameters of a method are set to in one place, by field.
Settings = Mapping[str, Setting]


@dataclass(frozen=True)
class Source:
    """A model, or some of its layers, as it goes into a slice."""

    model: str  # a key of ``MergeConfig.references``
    where: str  # place in the configuration, for messages
    layers: tuple[int, int] | None = None  # first, and one past the last; None: all
    settings: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class Slice:
    """Consecutive layers of the output and what they are made of."""

    where: str
    base: Source | None  # where the method has one; it is not among ``sources``
    sources: tuple[Source, ...]
    settings: Settings = field(default_factory=dict)

    @property
    def inputs(self) -> tuple[Source, ...]:
        """All models of the slice, the base first."""
        return self.sources if self.base is None else (self.base, *self.sources)


@dataclass(frozen=True)
class TokenizerChoice:
    """Whose tokens the output has."""

    source: str  # union, base, or a model of the merge
    pad_to_multiple_of: int | None = None


@dataclass(frozen=True)
class MergeConfig:
    """A merge that can be planned as soon as its models are there."""

    where: str  # file or entry that it was read from, for messages
    method: str
    slices: tuple[Slice, ...]
    references: Mapping[str, Reference]  # by name, in the order of the configuration
    donor: str  # the model that gives config and tokenizer
    base: str | None = None  # the base of the whole merge, if one is named
    settings: Settings = field(default_factory=dict)  # for all slices
    dtype: str | None = None  # of the output; None: that of each tensor of the donor
    tokenizer: TokenizerChoice | None = None
    chat_template: str | None = None
    seed: int | None = None  # of random dropping, if the configuration names one
    warnings: tuple[str, ...] = ()

    @property
    def rules(self) -> Method:
        """What the method takes."""
        return METHODS[self.method]

    def chain(
        self, parameter: Parameter, place: Slice, source: Source | None = None
    ) -> list[Setting]:
        """What a parameter is set to, from what counts most: of a model, of a slice, of all."""
        levels = [source.settings] if source else []
        levels += [place.settings, self.settings]
        return [level[parameter.field] for level in levels if parameter.field in level]

    def all_settings(self) -> Iterator[Setting]:
        """Every setting that is written anywhere."""
        yield from self.settings.values()
        for place in self.slices:
            yield from place.settings.values()
            for source in place.sources:
                yield from source.settings.values()


def from_settings(settings: MergeSettings) -> MergeConfig:
    """Turn the entry of a recipe into a configuration; its models are names of the recipe."""
    rules = METHODS[settings.method]
    base = getattr(settings, "base", None)
    sources = [
        Source(
            entry.model,
            f"models[{index}]",
            _range(getattr(entry, "layers", None)),
            _set(entry, rules.per_model, f"models[{index}]."),
        )
        for index, entry in enumerate(settings.models)
    ]
    groups = [[source] for source in sources] if settings.method == "passthrough" else [sources]
    origin = Source(base, "base") if base is not None and rules.base != "none" else None
    names = dict.fromkeys([*([base] if base else []), *(source.model for source in sources)])
    return MergeConfig(
        where=f"merge {settings.name}",
        method=settings.method,
        slices=tuple(Slice(group[0].where, origin, tuple(group)) for group in groups),
        references={name: _reference(name) for name in names},
        donor=next(iter(names)),
        base=base,
        settings=_set(settings, rules.per_merge, ""),
        dtype=settings.dtype,
        seed=getattr(settings, "seed", None),
        warnings=tuple(
            f"{source.model} is the base itself: its task vector is zero"
            for source in sources
            if origin and source.model == base
        ),
    )


def _reference(name: str) -> Reference:
    """A model by its name; ``base+adapter`` is one, too, where no folder is called so."""
    with_adapter = "+" in name and not Path(name).is_dir()
    return parse_reference(name) if with_adapter else Reference(Part(name))


def _range(layers: list[int] | None) -> tuple[int, int] | None:
    return None if layers is None else (layers[0], layers[1])


def _set(entry: Any, parameters: Sequence[Parameter], where: str) -> dict[str, Setting]:
    """Settings of an entry of a recipe, defaults included."""
    return {
        parameter.field: Setting(where + parameter.field, _entries(getattr(entry, parameter.field)))
        for parameter in parameters
        if getattr(entry, parameter.field, None) is not None
    }


def _entries(value: Any) -> tuple[Entry, ...]:
    """Write any parameter of a recipe as filters; a plain value is one entry that matches all."""
    if isinstance(value, list) and value and hasattr(value[0], "filter"):
        return tuple(Entry(_values(entry.value), entry.filter) for entry in value)
    return (Entry(_values(value)),)


def _values(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list) else (value,)
