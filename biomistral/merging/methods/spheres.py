"""Interpolation along arcs: a tensor is one long vector, and models are points on a sphere.

The angles are found in float64 first; after that every method here is a weighted sum of the models,
each step of it one float32 operation. The compiled kernel mirrors SLERP, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from torch import Tensor

from biomistral.merging.methods.blocks import Share, Values, block, cosine, places

# Cosine above which SLERP counts two vectors as parallel (mergekit's number).
_PARALLEL = 0.9995


def slerp(base: Values, shares: Sequence[Share], *, t: float) -> Iterator[Tensor]:
    """Interpolate from ``base`` (t = 0) to the one share (t = 1) along the arc between them.

    Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985, on the tensor as one long
    vector. Nearly parallel or opposite vectors are interpolated along the straight line.
    """
    other = shares[0].values
    from_base, from_other = arc_factors(cosine(base, other), t)
    for place in places(base):
        yield block(base, place) * from_base + block(other, place) * from_other


def arc_factors(cos: float, t: float) -> tuple[float, float]:
    """Return what SLERP multiplies its two vectors with."""
    if abs(cos) > _PARALLEL:
        return 1.0 - t, t
    angle = math.acos(cos)
    return math.sin((1.0 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)
