"""The merge methods: functions from the values of one tensor in several models to merged values.

Tensors are flat: n elements of any float type, the same element at the same place in all models.
A method yields its result as float32 blocks of shape (b,), in order, together (n,); only what is
passed through unchanged keeps its type. All arithmetic is in float32 and rounded once, by whoever stores the result; so the memory needed is that of a few
blocks. Every method here is one scheme: first find a few numbers for the whole tensor (an angle,
a threshold, a norm), then compute element by element.

Results are the same for any number of threads and any machine: sums over a tensor have one fixed
order (see ``blocks``), and no operation is used whose vectorised and scalar forms may round
differently. The compiled kernel gives the same bits, and follows the order of operations told here.

Knows nothing about files, names, layers or settings; ``METHODS`` lists what there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from biomistral.merging.methods.averages import linear, model_stock, nearswap, passthrough
from biomistral.merging.methods.blocks import BLOCK_ELEMENTS, Share, Values, places
from biomistral.merging.methods.consensus import sce
from biomistral.merging.methods.spheres import karcher, multislerp, nuslerp, slerp
from biomistral.merging.methods.task_vectors import (
    breadcrumbs,
    breadcrumbs_ties,
    dare_linear,
    dare_ties,
    della,
    della_linear,
    task_arithmetic,
    ties,
)

__all__ = ["BLOCK_ELEMENTS", "METHODS", "Share", "Values", "places"]

# Each takes the base (or None), the shares, and its own options by keyword.
METHODS: dict[str, Callable[..., Iterator[Tensor]]] = {
    "linear": linear,
    "slerp": slerp,
    "nuslerp": nuslerp,
    "multislerp": multislerp,
    "karcher": karcher,
    "task_arithmetic": task_arithmetic,
    "ties": ties,
    "dare_linear": dare_linear,
    "dare_ties": dare_ties,
    "breadcrumbs": breadcrumbs,
    "breadcrumbs_ties": breadcrumbs_ties,
    "della": della,
    "della_linear": della_linear,
    "model_stock": model_stock,
    "sce": sce,
    "nearswap": nearswap,
    "passthrough": passthrough,
}
