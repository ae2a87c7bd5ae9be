"""What a merge is, in its smallest terms: for each tensor of the output, a method and its inputs.

Everything a configuration says (gradients, filters, slices, vocabularies, adapters) is resolved by
then. Knows nothing about configurations, about arithmetic or about how values are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from biomistral.models.safetensors_files import StoredTensor, TensorSpec

if TYPE_CHECKING:
    from biomistral.merging.vocabularies import RowMap
    from biomistral.models.adapters import LowRankUpdate


@dataclass(frozen=True)
class Input:
    """One tensor of one model as it goes into a merge."""

    model: str  # as the configuration names it
    stored: StoredTensor
    # Numbers that count for this model and this tensor, by the names of ``methods.Share``.
    numbers: Mapping[str, float] = field(default_factory=dict)
    update: LowRankUpdate | None = None  # of an adapter, to be added when it is read
    rows: RowMap | None = None  # if the output has another vocabulary


@dataclass(frozen=True)
class Job:
    """How one tensor of the output is made."""

    output: TensorSpec
    method: str  # a name in ``catalogue.METHODS``
    base: Input | None
    inputs: tuple[Input, ...]
    # Keyword arguments of the method's function, by its own names.
    options: Mapping[str, float | bool | str] = field(default_factory=dict)
