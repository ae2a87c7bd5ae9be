"""Element-wise steps of a decoder layer, in one pass each where ``fused.c`` can do them.

That is on a CPU, in bfloat16, with a compiler; elsewhere PyTorch does the same step by step. The two
differ by bfloat16 rounding, of which the passes in one have less. A third of the time of a small
model goes into these steps (measured). Knows nothing about attention or about how layers are wired.

Shapes: T tokens, H hidden width, D head width, F width of the feed-forward part.
"""

from __future__ import annotations

import ctypes
import functools
from ctypes import c_float, c_int64, c_void_p
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from biomistral.models.compiling import compiled

_SOURCE = Path(__file__).with_name("fused.c")
_SIGNATURES = {
    "fused_rms_norm": (None, (c_void_p, c_void_p, c_void_p, c_int64, c_int64, c_float)),
    "fused_gate": (None, (c_void_p, c_void_p, c_int64)),
    "fused_turn": (None, (c_void_p, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_int64)),
}


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the compiled functions; None if there is no compiler."""
    return compiled(_SOURCE, _SIGNATURES)


def normalized(norm: Any, hidden: Tensor) -> Tensor:
    """Apply a layer's norm to (T, H); one that is not a plain RMS norm does it by itself."""
    weight = getattr(norm, "weight", None)
    eps = getattr(norm, "variance_epsilon", None)
    if eps is None or weight is None or not _is_ours(hidden, weight):
        result: Tensor = norm(hidden)
        return result
    out = torch.empty_like(hidden)
    _library().fused_rms_norm(
        hidden.data_ptr(), weight.data_ptr(), out.data_ptr(), *hidden.shape, eps
    )
    return out


def project_into(out: Tensor, projection: Any, hidden: Tensor) -> None:
    """Write what a projection makes of (T, H) to its place, without a copy where it is a matrix."""
    if _is_matrix(projection):
        torch.mm(hidden, projection.weight.t(), out=out)
    else:
        out.copy_(projection(hidden))


def add_projected(hidden: Tensor, projection: Any, wide: Tensor) -> None:
    """Add a projection of (T, F) to hidden states (T, H); a matrix adds as it multiplies."""
    if _is_matrix(projection):
        hidden.addmm_(wide, projection.weight.t())
    else:
        hidden += projection(wide)


def gated(mlp: Any, hidden: Tensor) -> Tensor:
    """Apply a feed-forward part of gate, up and down projections to (T, H)."""
    down: Tensor = mlp.down_proj(inner(mlp, hidden))
    return down


def inner(mlp: Any, hidden: Tensor) -> Tensor:
    """Apply gate and up projections of a feed-forward part to (T, H): what goes down, (T, F)."""
    gate: Tensor = mlp.gate_proj(hidden)
    up: Tensor = mlp.up_proj(hidden)
    if _is_ours(gate, up) and type(mlp.act_fn).__name__ in {"SiLU", "SiLUActivation"}:
        _library().fused_gate(gate.data_ptr(), up.data_ptr(), gate.numel())
        return gate
    activated: Tensor = mlp.act_fn(gate) * up
    return activated


def turned(vectors: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate (T, heads, D), in place, by angles whose cosine and sine are float32 (T, D)."""
    if _is_ours(vectors) and cosine.is_contiguous() and sine.is_contiguous():
        num_tokens, num_heads, width = vectors.shape
        _library().fused_turn(
            *(vectors.data_ptr(), cosine.data_ptr(), sine.data_ptr()),
            *(num_tokens, num_heads, width, num_heads * width),
        )
        return vectors
    first, second = vectors.float().chunk(2, dim=-1)
    across = torch.cat([-second, first], dim=-1)
    return vectors.copy_(vectors * cosine[:, None] + across * sine[:, None])


def _is_matrix(projection: Any) -> bool:
    return type(projection) is nn.Linear and projection.bias is None


def _is_ours(*tensors: Tensor) -> bool:
    return library() is not None and all(
        tensor.dtype == torch.bfloat16 and tensor.device.type == "cpu" and tensor.is_contiguous()
        for tensor in tensors
    )


def _library() -> ctypes.CDLL:
    loaded = library()
    assert loaded is not None
    return loaded
