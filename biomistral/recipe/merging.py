"""The settings of merging: what an entry under ``merge`` may say. Part of ``settings``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from biomistral.recipe.fields import Name, Settings


class FilteredValue(Settings):
    """A value for the tensors whose name contains ``filter``; without one, for all the rest."""

    filter: str | None = Field(None, description="Part of a tensor name, such as self_attn or mlp.")
    value: float | list[float] = Field(description="A number, or a gradient over the layers.")


def _parameter_form(value: Any) -> str:
    if not isinstance(value, list):
        return "number"
    return "filters" if any(isinstance(v, dict | FilteredValue) for v in value) else "gradient"


# A number; a gradient over depth; or the first filter that matches a tensor's name.
Parameter = Annotated[
    Annotated[float, Tag("number")]
    | Annotated[list[float], Tag("gradient")]
    | Annotated[list[FilteredValue], Tag("filters")],
    Discriminator(_parameter_form),
]


def _within_unit(value: Parameter) -> Parameter:
    for number in parameter_numbers(value):
        if not 0 <= number <= 1:
            raise ValueError(f"{number} is outside 0 to 1")
    return value


def _density(value: Parameter) -> Parameter:
    for number in parameter_numbers(value):
        if not 0 < number <= 1:
            raise ValueError(f"density {number} is outside (0, 1]")
    return value


def parameter_numbers(value: Parameter) -> list[float]:
    """All numbers that a parameter can take."""
    if isinstance(value, float | int):
        return [float(value)]
    numbers: list[float] = []
    for item in value:
        numbers += parameter_numbers(item.value if isinstance(item, FilteredValue) else item)
    return numbers


UnitParameter = Annotated[Parameter, AfterValidator(_within_unit)]
DensityParameter = Annotated[Parameter, AfterValidator(_density)]


class MergeInput(Settings):
    """One model of a merge."""

    model: str = Field(description="Name of the model.")


class WeightedInput(MergeInput):
    """One model of a merge, with its weight."""

    weight: Parameter = Field(1.0, description="Factor of the model (or of its task vector).")


class SparseInput(WeightedInput):
    """One model of a sparse merge, with its weight and density."""

    density: DensityParameter = Field(1.0, description="Share of its task vector that is kept.")


class _Merge(Settings):
    name: Name = Field(description="Name of the model it makes.")
    dtype: Literal["bfloat16", "float16", "float32"] | None = Field(
        None, description="Type of the merged weights; default: that of the base model."
    )


class LinearMerge(_Merge):
    """Weighted mean of models (model soups, arXiv 2203.05482)."""

    method: Literal["linear"] = Field(description="linear")
    base: str | None = Field(
        None, description="Model that gives config and tokenizer; default: the first of models."
    )
    models: list[WeightedInput] = Field(min_length=2, description="The models to average.")
    normalize: bool = Field(True, description="Divide by the sum of the weights.")


class SlerpMerge(_Merge):
    """Spherical interpolation between a base and one other model."""

    method: Literal["slerp"] = Field(description="slerp")
    base: str = Field(description="The model at t = 0; gives config and tokenizer.")
    models: list[MergeInput] = Field(min_length=1, max_length=1, description="The model at t = 1.")
    t: UnitParameter = Field(description="Place between base (0) and the other model (1).")


class TaskArithmeticMerge(_Merge):
    """Base plus weighted task vectors (arXiv 2212.04089)."""

    method: Literal["task_arithmetic"] = Field(description="task_arithmetic")
    base: str = Field(description="The model the task vectors are differences to.")
    models: list[WeightedInput] = Field(min_length=1, description="The fine-tuned models.")
    normalize: bool = Field(False, description="Divide by the sum of the weights.")
    scale: float = Field(1.0, description="Factor of the summed task vector (lambda).")


class TiesMerge(_Merge):
    """Trim, elect sign and merge task vectors (TIES, arXiv 2306.01708)."""

    method: Literal["ties"] = Field(description="ties")
    base: str = Field(description="The model the task vectors are differences to.")
    models: list[SparseInput] = Field(min_length=1, description="The fine-tuned models.")
    normalize: bool = Field(
        True,
        description="Divide each element by the weights that took part; a single model then "
        "forgets its weight.",
    )
    scale: float = Field(1.0, description="Factor of the summed task vector (lambda).")


class DareMerge(_Merge):
    """Drop and rescale task vectors at random (DARE, arXiv 2311.03099), summed or with TIES signs."""

    method: Literal["dare_ties", "dare_linear"] = Field(
        description="dare_ties elects a sign per element; dare_linear does not."
    )
    base: str = Field(description="The model the task vectors are differences to.")
    models: list[SparseInput] = Field(min_length=1, description="The fine-tuned models.")
    normalize: bool = Field(False, description="Divide by the weights that took part.")
    scale: float = Field(1.0, description="Factor of the summed task vector (lambda).")
    rescale: Literal["density", "l1_norm", "none"] = Field(
        "density",
        description="density: kept entries times 1/density, as in the paper; l1_norm: to the L1 "
        "norm of the whole vector, as mergekit does since 2025.",
    )
    seed: int | None = Field(None, ge=0, description="Of the dropping; default: the recipe's.")


MergeSettings = Annotated[
    LinearMerge | SlerpMerge | TaskArithmeticMerge | TiesMerge | DareMerge,
    Field(discriminator="method"),
]
