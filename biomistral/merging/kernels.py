"""The compiled inner loops of merging (``kernels.c``): built at first use, called through ctypes.

Needs neither PyTorch nor NumPy. Where there is no C compiler ``library()`` is None, and whoever
asks computes with the functions of ``methods``, which give the same bytes, more slowly.
"""

from __future__ import annotations

import ctypes
import functools
from ctypes import POINTER, c_double, c_float, c_int, c_int32, c_int64, c_uint32, c_uint64
from pathlib import Path

from biomistral.models.compiling import compiled

SOURCE = Path(__file__).with_name("kernels.c")
# As in kernels.c.
TYPES = {"bfloat16": 0, "float16": 1, "float32": 2}
KEEP_ALL, KEEP_LARGEST, KEEP_RANDOM = range(3)
MAX_INPUTS = 32
CHUNK = 4096
COMPARED = 5  # sums per chunk of merge_compare: a*b, a*a, b*b, (a-b)*(a-b), equal signs


class Place(ctypes.Structure):
    """Where a tensor lies: an open file, the type of its elements, the offset of the first."""

    _fields_ = (("file", c_int32), ("type", c_int32), ("offset_bytes", c_int64))


class Share(ctypes.Structure):
    """What a model brings to a sum of task vectors."""

    _fields_ = (
        ("place", Place),
        ("key", c_uint64),
        ("num_equal", c_int64),
        ("keep_below", c_uint32),
        ("sparsity", c_int32),
        ("threshold", c_float),
        ("factor", c_float),
        ("weight", c_float),
    )


_PLACES, _SHARES = POINTER(Place), POINTER(Share)
_RANGE = (c_int64, c_int64)
_SIGNATURES = {
    "merge_linear": (c_int64, (_PLACES, POINTER(c_float), c_int, c_float, *_RANGE)),
    "merge_compare": (c_int64, (_PLACES, *_RANGE, c_int, POINTER(c_double))),
    "merge_count": (
        c_int64,
        (
            *(_PLACES, *_RANGE, c_int64, c_int, c_uint32, c_uint32),
            *(POINTER(c_int64), POINTER(c_uint32)),
        ),
    ),
    "merge_rank": (c_int64, (POINTER(c_uint32), c_int, c_int64, c_int64, POINTER(c_int64))),
    "merge_magnitudes": (c_int64, (Place, _SHARES, *_RANGE, POINTER(c_double))),
    "merge_task_vectors": (
        c_int64,
        (_PLACES, _SHARES, c_int, c_int, c_int, c_float, c_float, *_RANGE),
    ),
    "merge_has_float16": (c_int, ()),
    "merge_add": (c_double, (POINTER(c_double), c_int64, c_int64)),
}


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the compiled functions, building them if need be; None if that is not possible."""
    return compiled(SOURCE, _SIGNATURES)


def built_types() -> frozenset[str]:
    """Return the types of elements that the compiled functions take; none if there are none."""
    loaded = library()
    if loaded is None:
        return frozenset()
    return frozenset(TYPES) - (set() if loaded.merge_has_float16() else {"float16"})
