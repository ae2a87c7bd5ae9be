"""Quantization: a plain checkpoint to one with 4- or 8-bit weights.

``quantize`` is the step. It is loaded on first use, for it brings PyTorch with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from biomistral.quantization.step import quantize

__all__ = ["quantize"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from biomistral.quantization.step import quantize

        return quantize
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
