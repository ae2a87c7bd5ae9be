"""Linear layers of 4-bit weights on a CPU, fast for one row and for many.

PyTorch's int4 kernel is made for single rows: three times as fast as bfloat16 there, ten times as
slow with 512. Where the processor has matrix units (AMX), all rows go to ``int4_rows.c`` instead, which
multiplies the levels as they are. Elsewhere few rows go to PyTorch's kernel, and for many a tile of the
weights is written out in bfloat16, small enough to stay in the processor's cache, and multiplied as
usual. All ways agree within the rounding of bfloat16.

Which way is taken depends on the processor and the number of rows alone. ``int4_rows.c`` and the
kernel compute each row by itself, and evaluation always brings the same number of rows at once
(``packed``), so no way lets a result depend on its company.

The weights lie as the kernel wants them, which is not documented: a trial says how, at first use, and
if it is none of the ways known here ``is_available`` says no. Knows nothing about checkpoints.

Shapes: K inputs, N outputs, R rows, G groups of inputs that share a scale and a zero point.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from ctypes import c_int, c_int64, c_void_p
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from biomistral.models.awq import ORDER, PER_INT32, PackedLinear
from biomistral.models.compiling import compiled
from biomistral.models.parallel import share_out

_SOURCE = Path(__file__).with_name("int4.c")
_SIGNATURES = {"int4_blocks": (None, (*(c_void_p,) * 3, *(c_int64,) * 7))}
_ROWS_SOURCE = Path(__file__).with_name("int4_rows.c")
_ROWS_SIGNATURES = {
    "int4_rows_are_possible": (c_int, ()),
    "int4_rows": (c_int, (c_void_p, c_int64, c_int64)),
}
_ROWS_WIDTH = 64  # of blocks, that int4_rows.c knows
# Up to here the kernel is faster: measured on one core with matrix units, where 8 rows took half as
# long as by tiles and 16 rows as long.
FEW_ROWS = 16
_TILE_OUTPUTS = 256  # for each thread: 1 MB for 2,048 inputs
_AT_ONCE = 512  # outputs that are packed at once: bounds the memory it takes
_GROUP_SIZES = (32, 64, 128, 256)  # that the kernel knows
_MIDDLE = 8  # the level that the kernel takes for zero


class _Task(ctypes.Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("rows", "levels", "pairs", "out")),
        *((name, c_int64) for name in ("num_rows", "inputs", "outputs", "group")),
    )


class HybridLinear(nn.Module):
    """A linear layer whose weight is ``(level - 8) * scale + zero``, with 4-bit levels.

    Takes and gives bfloat16. It cannot be trained or saved: the checkpoint is what is kept.
    """

    levels: Tensor  # uint8 (N, K / 2), in the order of PyTorch's kernel
    pairs: Tensor  # bfloat16 (G, N, 2): scale and zero
    bias: nn.Parameter | None

    def __init__(self, levels: Tensor, pairs: Tensor) -> None:
        super().__init__()
        self.register_buffer("levels", levels)
        self.register_buffer("pairs", pairs)
        self.register_parameter("bias", None)
        self.out_features: int = pairs.shape[1]
        self.in_features: int = 2 * levels.numel() // self.out_features
        self.group_size: int = self.in_features // pairs.shape[0]

    def forward(self, hidden: Tensor) -> Tensor:
        """Return (..., N) for (..., K)."""
        rows = hidden.reshape(-1, self.in_features).contiguous()
        # Our own product has no gradient.
        wants_gradient = torch.is_grad_enabled() and rows.requires_grad
        if rows_library() is not None and not wants_gradient:
            out = self._by_rows(rows)
        elif rows.shape[0] <= FEW_ROWS:
            out = self._by_kernel(rows)
        else:
            out = self._by_tiles(rows)
        if self.bias is not None:
            out += self.bias
        return out.view(*hidden.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Say its shape, as the layers of PyTorch do."""
        return f"in_features={self.in_features}, out_features={self.out_features}, 4 bits"

    def _by_rows(self, rows: Tensor) -> Tensor:
        loaded = rows_library()
        assert loaded is not None, "asked for where it is not"
        assert rows.dtype == torch.bfloat16, "of another type"
        out = rows.new_empty(rows.shape[0], self.out_features)
        task = _Task(
            *(each.data_ptr() for each in (rows, self.levels, self.pairs, out)),
            *(rows.shape[0], self.in_features, self.out_features, self.group_size),
        )
        done: list[int] = []

        def work(first: int, last: int) -> None:
            done.append(loaded.int4_rows(ctypes.byref(task), first, last))

        share_out(work, self.out_features // _ROWS_WIDTH)
        if not all(done):
            raise MemoryError(f"product of {rows.shape[0]} rows with a 4-bit weight")
        return out

    def _by_kernel(self, rows: Tensor) -> Tensor:
        out: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
            rows, self.levels, self.group_size, self.pairs
        )
        return out

    def _by_tiles(self, rows: Tensor) -> Tensor:
        width = block_width()
        assert width is not None, "the layer was made without a kernel"
        num_blocks = self.out_features // width
        step = max(1, _TILE_OUTPUTS * torch.get_num_threads() // width)
        buffer = rows.new_empty(self.in_features * step * width)
        out = rows.new_empty(rows.shape[0], self.out_features)
        for first in range(0, num_blocks, step):
            last = min(first + step, num_blocks)
            num_outputs = (last - first) * width
            tile = buffer[: self.in_features * num_outputs].view(self.in_features, num_outputs)
            write_blocks(self, tile, first, last)
            out[:, first * width : last * width] = rows @ tile
        return out


def hybrid_of(packed: PackedLinear) -> HybridLinear | None:
    """Return the layer of an AWQ weight, without a bias; None if its shape is none that the kernel takes."""
    zero_points, half_scales = packed.zeros_and_scales()  # (N, G)
    num_outputs, num_groups = zero_points.shape
    num_inputs = packed.num_inputs
    width = block_width()
    if width is None or num_outputs % width or num_inputs // num_groups not in _GROUP_SIZES:
        return None
    scales = half_scales.float()
    zeros = (_MIDDLE - zero_points.float()) * scales
    pairs = torch.stack([scales.T, zeros.T], dim=-1).to(torch.bfloat16)  # (G, N, 2)
    if packed.layout == "gemm":
        return HybridLinear(_kept_of_gemm(packed.qweight, width), pairs)
    levels = packed.parts()[0]
    kept = torch.empty(num_outputs, num_inputs // 2, dtype=torch.uint8)
    for first in range(0, num_outputs, _AT_ONCE):  # blocks are kept one behind the other
        some = levels[first : first + _AT_ONCE].to(torch.int32).contiguous()
        kept[first : first + _AT_ONCE] = torch.ops.aten._convert_weight_to_int4pack_for_cpu(some, 1)
    return HybridLinear(kept, pairs)


def _kept_of_gemm(qweight: Tensor, width: int) -> Tensor:
    """Put levels of the gemm layout, int32 (K, N / 8), in the order of the kernel: uint8 (N, K / 2).

    By halves of bytes, without unpacking: five times as fast, and less memory.
    """
    num_inputs, words = qweight.shape
    num_blocks = words * PER_INT32 // width
    # Of a block, the first half of its words goes to low halves of bytes, the second to high ones.
    halves = qweight.view(torch.uint8).view(num_inputs, num_blocks, 2, width // 16, 4)
    first, second = halves[:, :, 0].transpose(0, 1), halves[:, :, 1].transpose(0, 1)
    kept = torch.empty(num_blocks, num_inputs, width // 16, PER_INT32, dtype=torch.uint8)
    even, odd = (
        (first & 15) | (second << 4),
        (first >> 4) | (second & 240),
    )  # nibbles 0 2 4 6, 1 3 5 7
    for byte in range(4):
        kept[..., ORDER[2 * byte]] = even[..., byte]
        kept[..., ORDER[2 * byte + 1]] = odd[..., byte]
    return kept.view(num_blocks * width, num_inputs // 2)


def is_available() -> bool:
    """Whether PyTorch has the kernel here, with weights in an order that is known."""
    return block_width() is not None


# --- how the kernel keeps weights -----------------------------------------------------------------


@functools.cache
def block_width() -> int | None:
    """Outputs that the kernel keeps together, found by a trial; None if it is none known here."""
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(0, 16, (128, 64), generator=generator, dtype=torch.int32)  # (N, K)
    try:
        kept = torch.ops.aten._convert_weight_to_int4pack_for_cpu(levels, 1)
    except (AttributeError, RuntimeError):  # no such kernel
        return None
    for width in (64, 32):
        if torch.equal(levels_of(kept, 64, width).T.to(torch.int32), levels):
            return width
    return None


def levels_of(kept: Tensor, num_inputs: int, width: int) -> Tensor:
    """Return the levels of a weight, or of whole blocks of one, as uint8 (K, N).

    Byte j of an input in a block holds output j in its low half, j + width / 2 in its high half.
    """
    halves = kept.view(-1, num_inputs, width // 2)  # (blocks, K, width / 2)
    both = torch.cat([halves & 15, halves >> 4], dim=-1)
    return both.transpose(0, 1).reshape(num_inputs, -1)


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the compiled function; None if there is no compiler."""
    return compiled(_SOURCE, _SIGNATURES)


@functools.cache
def rows_library() -> ctypes.CDLL | None:
    """Return the functions for matrix units; None if there is no compiler, or no such processor."""
    loaded = compiled(_ROWS_SOURCE, _ROWS_SIGNATURES)
    possible = loaded is not None and loaded.int4_rows_are_possible()
    return loaded if possible and block_width() == _ROWS_WIDTH else None


def write_blocks(layer: HybridLinear, out: Tensor, first: int, last: int) -> None:
    """Write blocks of outputs ``first`` to ``last`` of a layer's weight to ``out``, bfloat16 (K, N)."""
    loaded, width = library(), block_width()
    assert width is not None, "the layer was made without a kernel"
    if loaded is None:
        _write_with_torch(layer, out, first, last, width)
        return
    blocks: Callable[..., Any] = loaded.int4_blocks
    num_outputs = (last - first) * width

    def work(start: int, stop: int) -> None:
        blocks(
            *(layer.levels.data_ptr(), layer.pairs.data_ptr()),
            out.data_ptr() + start * width * out.element_size(),
            *(layer.in_features, layer.out_features, layer.group_size, width),
            *(first + start, first + stop, num_outputs),
        )

    share_out(work, last - first)


def _write_with_torch(layer: HybridLinear, out: Tensor, first: int, last: int, width: int) -> None:
    size = layer.in_features * width // 2  # bytes of a block
    levels = levels_of(layer.levels.view(-1)[first * size : last * size], layer.in_features, width)
    pairs = layer.pairs[:, first * width : last * width].float()
    scales, zeros = (
        part.repeat_interleave(layer.group_size, dim=0)  # (K, N)
        for part in (pairs[..., 0], pairs[..., 1] - _MIDDLE * pairs[..., 0])
    )
    out.copy_(levels.float() * scales + zeros)
