"""Causal attention by ``attention.c``, on processors with matrix units for bfloat16 (AMX).

PyTorch's attention on a CPU spends most of its time on exponentials and on scores that a mask hides
(measured). This one computes none that are hidden, and rounds nothing twice. Elsewhere, and for other
types and widths, there is none, and whoever asks takes PyTorch's. Knows nothing about models.

Shapes: Q queries, N keys, D head width.
"""

from __future__ import annotations

import ctypes
import functools
from ctypes import c_float, c_int, c_int64, c_void_p
from pathlib import Path

import torch
from torch import Tensor

from biomistral.models.compiling import compiled
from biomistral.models.parallel import share_out

_SOURCE = Path(__file__).with_name("attention.c")
_SIGNATURES = {
    "attention_is_possible": (c_int, ()),
    "attention_rows": (c_int, (c_void_p, c_int64, c_int64)),
}
_WIDTHS = (32, 64, 96, 128)


class _Task(ctypes.Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("queries", "keys", "values", "out", "limits")),
        *((name, c_int64) for name in ("num_queries", "num_keys", "num_heads", "num_sharing")),
        *((name, c_int64) for name in ("width", "capacity")),
        ("scaling", c_float),
    )


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the compiled functions; None if there is no compiler, or no such processor."""
    loaded = compiled(_SOURCE, _SIGNATURES)
    return loaded if loaded is not None and loaded.attention_is_possible() else None


def is_available(path: Tensor) -> bool:
    """Whether ``attend`` can use keys and values (2, groups, capacity, D) of this kind."""
    return (
        path.dtype == torch.bfloat16
        and path.device.type == "cpu"
        and path.shape[-1] in _WIDTHS
        and path.is_contiguous()
        and library() is not None
    )


def attend(queries: Tensor, path: Tensor, limits: Tensor, scaling: float) -> Tensor:
    """Return what queries (Q, heads, D) find in the first ``limits`` (Q,) keys of ``path``.

    ``path`` is as in ``is_available``; each group of keys is shared by as many heads that follow each
    other. Limits are int32, at least 1.
    """
    loaded = library()
    assert loaded is not None, "is_available was not asked"
    assert (queries.dtype, limits.dtype) == (path.dtype, torch.int32), "of another type"
    queries, limits = queries.contiguous(), limits.contiguous()
    num_queries, num_heads, width = queries.shape
    out = torch.empty_like(queries)
    if not num_queries:
        return out
    num_keys = int(limits.max())
    assert num_keys <= path.shape[2], "a limit is past the keys"
    task = _Task(
        *(queries.data_ptr(), path[0].data_ptr(), path[1].data_ptr(), out.data_ptr()),
        *(limits.data_ptr(), num_queries, num_keys, num_heads, num_heads // path.shape[1]),
        *(width, path.shape[2], scaling),
    )
    done: list[int] = []

    def work(first: int, last: int) -> None:
        done.append(loaded.attention_rows(ctypes.byref(task), first, last))

    share_out(work, path.shape[1])
    if not all(done):
        raise MemoryError(f"attention of {num_queries} tokens to {num_keys} others")
    return out
