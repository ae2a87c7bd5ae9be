"""Averages of models, element by element.

Each element-wise step is one float32 operation; the compiled kernel mirrors them, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import reduce
from operator import add

from torch import Tensor

from biomistral.merging.methods.blocks import Share, Values, block, places


def linear(
    _base: Values | None, shares: Sequence[Share], *, normalize: bool = True
) -> Iterator[Tensor]:
    """Weighted sum of the models, over the sum of the weights if ``normalize``.

    Wortsman et al., "Model soups", arXiv 2203.05482. The base counts only if it is among the shares.
    """
    divisor = math.fsum(share.weight for share in shares) if normalize else 1.0
    for place in places(shares[0].values):
        total = reduce(add, (block(share.values, place) * share.weight for share in shares))
        yield total / divisor
