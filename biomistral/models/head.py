"""The output head of generation: logits in float32 without a float32 copy of the matrix.

bfloat16 has so few logits that the best tokens often tie. Evaluation, which runs many rows at once,
takes the head in float32 (``reading``); an answer is made token by token, and reading a copy twice as
large would cost a tenth of its speed or more. On a CPU ``head.c`` multiplies the bfloat16 matrix with
float32 rows; where that cannot be, the head's own arithmetic is used. Knows nothing about sampling.

Shapes: B rows, H hidden width, V vocabulary.
"""

from __future__ import annotations

import ctypes
import functools
from ctypes import c_int64, c_void_p
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biomistral.models.compiling import compiled
from biomistral.models.parallel import share_out

_SOURCE = Path(__file__).with_name("head.c")
_SIGNATURES = {"head_rows": (None, (*(c_void_p,) * 3, *(c_int64,) * 5))}
_ROWS = 16  # of a matrix product, so that its rounding does not depend on their number


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the compiled function; None if there is no compiler."""
    return compiled(_SOURCE, _SIGNATURES)


def head_logits(head: Any, hidden: Tensor) -> Tensor:
    """Return float32 logits (B, V) of (B, H); on a CPU each row by itself, to the last bit."""
    if _is_ours(head):
        return _few_rows(head.weight, hidden)
    if hidden.device.type != "cpu":
        found: Tensor = head(hidden)
        return found.float()
    number = hidden.shape[0]
    padded = F.pad(hidden, (0, 0, 0, -number % _ROWS))
    parts = [head(padded[start : start + _ROWS]) for start in range(0, len(padded), _ROWS)]
    return torch.cat(parts)[:number].float()


def _is_ours(head: Any) -> bool:
    return (
        type(head) is nn.Linear
        and getattr(head, "bias", None) is None
        and head.weight.dtype == torch.bfloat16
        and head.weight.device.type == "cpu"
        and head.weight.is_contiguous()
        and library() is not None
    )


def _few_rows(weight: Tensor, hidden: Tensor) -> Tensor:
    loaded = library()
    assert loaded is not None
    rows = hidden.float().contiguous()
    (number, width), outputs = rows.shape, weight.shape[0]
    logits = rows.new_empty(number, outputs)

    def work(first: int, last: int) -> None:
        loaded.head_rows(
            *(rows.data_ptr(), weight.data_ptr(), logits.data_ptr()),
            *(number, width, outputs, first, last),
        )

    share_out(work, outputs)
    return logits
