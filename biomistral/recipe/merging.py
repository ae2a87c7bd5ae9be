"""The settings of merging: what an entry under ``merge`` may say. Part of ``settings``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from biomistral.recipe.fields import Name, Settings

Gradient = Annotated[list[float], Field(min_length=1)]


class FilteredValue(Settings):
    """A value for the tensors whose name contains ``filter``; without one, for all the rest."""

    filter: str | None = Field(None, description="Part of a tensor name, such as self_attn or mlp.")
    value: float | Gradient = Field(description="A number, or a gradient over the layers.")


def _parameter_form(value: Any) -> str:
    if not isinstance(value, list):
        return "number"
    return "filters" if any(isinstance(v, dict | FilteredValue) for v in value) else "gradient"


# A number; a gradient over depth; or the first filter that matches a tensor's name.
Parameter = Annotated[
    Annotated[float, Tag("number")]
    | Annotated[Gradient, Tag("gradient")]
    | Annotated[list[FilteredValue], Tag("filters")],
    Discriminator(_parameter_form),
]


def _in(interval: str) -> AfterValidator:
    """A check of all numbers of a parameter; ``interval`` as in ``(0, 1]``."""
    low, high = (float(bound) for bound in interval[1:-1].split(","))

    def check(value: Parameter) -> Parameter:
        for number in parameter_numbers(value):
            above = number > low or (number == low and interval[0] == "[")
            below = number < high or (number == high and interval[-1] == "]")
            if not (above and below):
                raise ValueError(f"{number} is outside {interval}")
        return value

    return AfterValidator(check)


def parameter_numbers(value: Parameter) -> list[float]:
    """All numbers that a parameter can take."""
    if isinstance(value, float | int):
        return [float(value)]
    numbers: list[float] = []
    for item in value:
        numbers += parameter_numbers(item.value if isinstance(item, FilteredValue) else item)
    return numbers


def _range(layers: list[int]) -> list[int]:
    if len(layers) != 2 or layers[0] >= layers[1]:
        raise ValueError(f"{layers} is no range of layers; give [first, one past the last]")
    return layers


UnitParameter = Annotated[Parameter, _in("[0, 1]")]
DensityParameter = Annotated[Parameter, _in("(0, 1]")]


class MergeInput(Settings):
    """One model of a merge."""

    model: str = Field(description="Name of the model.")


class WeightedInput(MergeInput):
    """One model of a merge, with its weight."""

    weight: Parameter = Field(1.0, description="Factor of the model (or of its task vector).")


class SparseInput(WeightedInput):
    """One model of a sparse merge, with its weight and density."""

    density: DensityParameter = Field(1.0, description="Share of its task vector that is kept.")


class CrumbsInput(SparseInput):
    """One model of a breadcrumbs merge."""

    gamma: Annotated[Parameter, _in("[0, 1)")] = Field(
        0.01, description="Share of the largest elements of its task vector that is dropped."
    )


class RankedInput(SparseInput):
    """One model of a DELLA merge."""

    epsilon: Annotated[Parameter, _in("[0, 0.5)")] = Field(
        0.15,
        description="The chance to be kept rises with the magnitude, from density - epsilon to "
        "density + epsilon.",
    )


class LayersInput(WeightedInput):
    """Some layers of a model, as they are put into another one."""

    layers: Annotated[list[Annotated[int, Field(ge=0)]], AfterValidator(_range)] | None = Field(
        None, description="First layer and one past the last, such as [0, 24]; default: all."
    )


class _Merge(Settings):
    name: Name = Field(description="Name of the model it makes.")
    dtype: Literal["bfloat16", "float16", "float32"] | None = Field(
        None, description="Type of the merged weights; default: that of the base model."
    )


_GIVES_CONFIG = Field(
    None, description="Model that gives config and tokenizer; default: the first of models."
)
_BASE = Field(description="The model the task vectors are differences to.")
_ORIGIN = Field(
    None,
    description="Interpolate differences to this model, which gives config and tokenizer; default: "
    "whole models, and the first gives them.",
)
_SCALE = Field(1.0, description="Factor of the summed task vector (lambda).")
_SEED = Field(None, ge=0, description="Of the dropping; default: the recipe's.")
Rescale = Literal["density", "l1_norm", "none"]
_RESCALE: Any = Field(
    "density",
    description="density: kept entries over their chance to be kept, as in the papers; l1_norm: to "
    "the L1 norm of the whole vector, as mergekit does since 2025.",
)


class LinearMerge(_Merge):
    """Weighted mean of models (model soups, arXiv 2203.05482)."""

    method: Literal["linear"] = Field(description="linear")
    base: str | None = _GIVES_CONFIG
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
    base: str = _BASE
    models: list[WeightedInput] = Field(min_length=1, description="The fine-tuned models.")
    normalize: bool = Field(False, description="Divide by the sum of the weights.")
    scale: float = _SCALE


class TiesMerge(_Merge):
    """Trim, elect sign and merge task vectors (TIES, arXiv 2306.01708)."""

    method: Literal["ties"] = Field(description="ties")
    base: str = _BASE
    models: list[SparseInput] = Field(min_length=1, description="The fine-tuned models.")
    normalize: bool = Field(
        True,
        description="Divide each element by the weights that took part; a single model then "
        "forgets its weight.",
    )
    scale: float = _SCALE


class DareMerge(_Merge):
    """Drop and rescale task vectors at random (DARE, arXiv 2311.03099), summed or with TIES signs."""

    method: Literal["dare_ties", "dare_linear"] = Field(
        description="dare_ties elects a sign per element; dare_linear does not."
    )
    base: str = _BASE
    models: list[SparseInput] = Field(min_length=1, description="The fine-tuned models.")
    normalize: bool = Field(False, description="Divide by the weights that took part.")
    scale: float = _SCALE
    rescale: Rescale = _RESCALE
    seed: int | None = _SEED


class BreadcrumbsMerge(_Merge):
    """Task vectors without their largest and smallest elements (arXiv 2312.06795)."""

    method: Literal["breadcrumbs", "breadcrumbs_ties"] = Field(
        description="breadcrumbs_ties elects a sign per element; breadcrumbs does not."
    )
    base: str = _BASE
    models: list[CrumbsInput] = Field(min_length=1, description="The fine-tuned models.")
    normalize: bool = Field(False, description="Divide by the weights that took part.")
    scale: float = _SCALE


class DellaMerge(_Merge):
    """Drop task vectors at random, small elements more likely (DELLA, arXiv 2406.11617)."""

    method: Literal["della", "della_linear"] = Field(
        description="della elects a sign per element; della_linear does not."
    )
    base: str = _BASE
    models: list[RankedInput] = Field(min_length=1, description="The fine-tuned models.")
    normalize: bool | None = Field(
        None,
        description="Divide by the weights that took part; default: true for della, false for "
        "della_linear.",
    )
    scale: float = _SCALE
    rescale: Rescale = _RESCALE
    seed: int | None = _SEED


class SceMerge(_Merge):
    """Task vectors selected by variance, weighted by size, with elected signs (arXiv 2408.07990)."""

    method: Literal["sce"] = Field(description="sce")
    base: str = _BASE
    models: list[MergeInput] = Field(min_length=1, description="The fine-tuned models.")
    select_topk: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of the elements, those of largest variance among the models, that "
        "change.",
    )


class ModelStockMerge(_Merge):
    """Between the base and the mean of the models, as the angles say (arXiv 2403.19522)."""

    method: Literal["model_stock"] = Field(description="model_stock")
    base: str = Field(description="The model they were all trained from.")
    models: list[MergeInput] = Field(min_length=2, description="The fine-tuned models.")


class NuslerpMerge(_Merge):
    """Spherical interpolation of two models by their weights."""

    method: Literal["nuslerp"] = Field(description="nuslerp")
    base: str | None = _ORIGIN
    models: list[WeightedInput] = Field(min_length=2, max_length=2, description="The two models.")


class MultislerpMerge(_Merge):
    """Spherical interpolation of several models around their mean."""

    method: Literal["multislerp"] = Field(description="multislerp")
    base: str | None = _ORIGIN
    models: list[WeightedInput] = Field(min_length=2, description="The models.")
    normalize_weights: bool = Field(True, description="Divide the weights by their sum.")
    eps: float = Field(1e-8, gt=0, description="Norms below this count as zero.")


class KarcherMerge(_Merge):
    """Mean on the sphere (Karcher mean) of models."""

    method: Literal["karcher"] = Field(description="karcher")
    base: str | None = _GIVES_CONFIG
    models: list[MergeInput] = Field(min_length=2, description="The models.")
    max_iter: int = Field(10, ge=1, description="Most steps of the search.")
    tol: float = Field(1e-5, gt=0, description="The search ends below this step.")


class NearswapMerge(_Merge):
    """Take the other model's elements where they are near to the base's."""

    method: Literal["nearswap"] = Field(description="nearswap")
    base: str = Field(description="The model to start from; gives config and tokenizer.")
    models: list[MergeInput] = Field(min_length=1, max_length=1, description="The other model.")
    t: Annotated[Parameter, _in("[0, inf)")] = Field(
        description="Differences up to this are taken whole, larger ones up to this size."
    )


class PassthroughMerge(_Merge):
    """Layers of models, one after the other, as they are."""

    method: Literal["passthrough"] = Field(description="passthrough")
    base: str | None = _GIVES_CONFIG
    models: list[LayersInput] = Field(min_length=1, description="Layers, from first to last.")


MergeSettings = Annotated[
    LinearMerge
    | SlerpMerge
    | TaskArithmeticMerge
    | TiesMerge
    | DareMerge
    | BreadcrumbsMerge
    | DellaMerge
    | ModelStockMerge
    | SceMerge
    | NuslerpMerge
    | MultislerpMerge
    | KarcherMerge
    | NearswapMerge
    | PassthroughMerge,
    Field(discriminator="method"),
]
