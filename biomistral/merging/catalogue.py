"""The merge methods as configurations speak of them: what each takes, and with which numbers.

A table and nothing else: the arithmetic is in ``methods`` under the same names, with the fields
below as keyword arguments (of a merge) and as fields of ``Share`` (of a model). Keys are those of
mergekit's YAML; what of it is not taken over is in ``OTHER_METHODS`` and with each method.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Literal

Value = float | bool | str


@dataclass(frozen=True)
class Parameter:
    """One number, switch or choice of a method."""

    field: str  # keyword argument of the method's function, or field of ``Share``
    meaning: str
    default: Value | None = None  # None: has to be given
    kind: Literal["number", "whole", "flag", "rescale"] = "number"
    interval: str = "(-inf, inf)"  # of allowed numbers
    mergekit_key: str = ""  # in mergekit's YAML, if it is not ``field``

    @property
    def key(self) -> str:
        """Name of the parameter in mergekit's YAML."""
        return self.mergekit_key or self.field

    def allows(self, number: float) -> bool:
        """Whether a number is finite and in the interval."""
        low, high = (float(bound) for bound in self.interval[1:-1].split(","))
        above = number > low or (number == low and self.interval[0] == "[")
        below = number < high or (number == high and self.interval[-1] == "]")
        return math.isfinite(number) and above and below


@dataclass(frozen=True)
class Method:
    """What a method takes. Numbers of models do not count the base where the method has one."""

    title: str  # of what its output is: "... models"
    paper: str
    base: Literal["required", "optional", "none"]
    models: tuple[int, int | None]  # fewest and most
    per_model: tuple[Parameter, ...] = ()
    per_merge: tuple[Parameter, ...] = ()
    # Parameters of mergekit that change nothing there either.
    without_effect: tuple[str, ...] = ()
    # Parameters of mergekit with the one value that means what is done here.
    only: dict[str, bool] = field(default_factory=dict)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """All parameters, those of a model first."""
        return self.per_model + self.per_merge


_WEIGHT = Parameter("weight", "Factor of the model or of its task vector.")
_DENSITY = Parameter("density", "Share of the task vector that is kept.", 1.0, interval="(0, 1]")
_GAMMA = Parameter(
    "gamma", "Share of the largest elements that is dropped.", 0.01, interval="[0, 1)"
)
_EPSILON = Parameter(
    "epsilon",
    "The chance to be kept rises with the magnitude from density - epsilon to density + epsilon.",
    0.15,
    interval="[0, 0.5)",
)
_NORMALIZE = Parameter("normalize", "Divide by the sum of the weights.", False, "flag")
_NORMALIZE_BY_DEFAULT = dataclasses.replace(_NORMALIZE, default=True)
_SCALE = Parameter("scale", "Factor of the summed task vector.", 1.0, mergekit_key="lambda")
_RESCALE = Parameter(
    "rescale",
    "How the loss is made up for: density (true), l1_norm, or none (false).",
    "density",
    "rescale",
)


def _task_vectors(
    title: str, paper: str, *sparse: Parameter, by_default: bool = False, random: bool = False
) -> Method:
    """A method that adds weighted task vectors (model minus base) to the base."""
    normalize = _NORMALIZE_BY_DEFAULT if by_default else _NORMALIZE
    return Method(
        title,
        paper,
        base="required",
        models=(1, None),
        per_model=(_WEIGHT, *sparse),
        per_merge=(normalize, _SCALE, *([_RESCALE] if random else [])),
        without_effect=("int8_mask",) if sparse else ("int8_mask", "density", "rescale"),
        only={} if random or not sparse else {"rescale": False},
    )


_SOUPS = "Wortsman et al., arXiv 2203.05482"
_SHOEMAKE = "Shoemake, SIGGRAPH 1985"
_DARE = "Yu et al., arXiv 2311.03099"
_BREADCRUMBS = "Davari and Belilovsky, arXiv 2312.06795"
_DELLA = "Deep et al., arXiv 2406.11617"

METHODS: dict[str, Method] = {
    "linear": Method(
        "the weighted mean of",
        _SOUPS,
        base="none",
        models=(1, None),
        per_model=(_WEIGHT,),
        per_merge=(_NORMALIZE_BY_DEFAULT,),
    ),
    "slerp": Method(
        "the spherical interpolation (SLERP) of",
        _SHOEMAKE,
        base="required",
        models=(1, 1),
        per_merge=(
            Parameter("t", "Place between the base (0) and the other (1).", interval="[0, 1]"),
        ),
    ),
    "nuslerp": Method(
        "the spherical interpolation by weights (NuSLERP) of",
        _SHOEMAKE,
        base="optional",
        models=(2, 2),
        per_model=(_WEIGHT,),
        only={"nuslerp_row_wise": False, "nuslerp_flatten": True},
    ),
    "multislerp": Method(
        "the barycentric spherical interpolation (multi-SLERP) of",
        "Goddard, https://goddard.blog/posts/multislerp-wow-what-a-cool-idea",
        base="optional",
        models=(1, None),
        per_model=(_WEIGHT,),
        per_merge=(
            Parameter("normalize_weights", "Divide weights by their sum.", True, "flag"),
            Parameter("eps", "Norms below this count as zero.", 1e-8, interval="(0, inf)"),
        ),
    ),
    "karcher": Method(
        "the mean on the sphere (Karcher mean) of",
        "Karcher, doi 10.1002/cpa.3160300502; arXiv 2603.04972",
        base="none",
        models=(1, None),
        per_merge=(
            Parameter("max_iter", "Most steps of the search.", 10, "whole", "[1, 1000000]"),
            Parameter("tol", "The search ends below this step.", 1e-5, interval="(0, inf)"),
        ),
    ),
    "task_arithmetic": _task_vectors(
        "the sum of task vectors (task arithmetic) of", "Ilharco et al., arXiv 2212.04089"
    ),
    "ties": _task_vectors(
        "the trimmed and sign-elected sum of task vectors (TIES) of",
        "Yadav et al., arXiv 2306.01708",
        _DENSITY,
        by_default=True,
    ),
    "dare_linear": _task_vectors(
        "the sum of randomly thinned task vectors (DARE) of", _DARE, _DENSITY, random=True
    ),
    "dare_ties": _task_vectors(
        "the sign-elected sum of randomly thinned task vectors (DARE-TIES) of",
        _DARE,
        _DENSITY,
        random=True,
    ),
    "breadcrumbs": _task_vectors(
        "the sum of task vectors without their largest and smallest elements (Model Breadcrumbs) of",
        _BREADCRUMBS,
        _DENSITY,
        _GAMMA,
    ),
    "breadcrumbs_ties": _task_vectors(
        "the sign-elected sum of task vectors without their largest and smallest elements "
        "(Model Breadcrumbs with TIES) of",
        _BREADCRUMBS,
        _DENSITY,
        _GAMMA,
    ),
    "della": _task_vectors(
        "the sign-elected sum of task vectors thinned by magnitude (DELLA) of",
        _DELLA,
        _DENSITY,
        _EPSILON,
        by_default=True,
        random=True,
    ),
    "della_linear": _task_vectors(
        "the sum of task vectors thinned by magnitude (DELLA) of",
        _DELLA,
        _DENSITY,
        _EPSILON,
        random=True,
    ),
    "model_stock": Method(
        "the interpolation between the base and the mean by the angles of task vectors (Model Stock) of",
        "Jang et al., arXiv 2403.19522",
        base="required",
        models=(2, None),
        only={"filter_wise": False},
    ),
    "sce": Method(
        "the sum of task vectors, selected by variance and weighted by size (SCE) of",
        "Wan et al., arXiv 2408.07990",
        base="required",
        models=(1, None),
        per_merge=(
            Parameter(
                "select_topk",
                "Share of the elements, those of largest variance among the models, that change.",
                1.0,
                interval="(0, 1]",
            ),
        ),
        without_effect=("int8_mask",),
    ),
    "nearswap": Method(
        "the pull of the base towards the elements near to it (nearswap) of",
        "https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001",
        base="required",
        models=(1, 1),
        per_merge=(Parameter("t", "Differences up to this are taken whole.", interval="[0, inf)"),),
    ),
    "passthrough": Method(
        "layers taken as they are (passthrough) from",
        "a copy",
        base="none",
        models=(1, 1),
        per_model=(Parameter("weight", "Factor of the tensors.", 1.0, mergekit_key="scale"),),
    ),
}

# Methods of mergekit that are not here, with what is nearest.
OTHER_METHODS = {
    "arcee_fusion": "nearest: sce with select_topk",
    "ram": "nearest: task_arithmetic",
    "ramplus_tl": "nearest: task_arithmetic",
}
