"""Merging: one model from several, tensor by tensor (linear, SLERP, task arithmetic, TIES, DARE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from biomistral.merging.step import merge

__all__ = ["merge"]


def __getattr__(name: str) -> Any:
    """Import ``merge`` when it is asked for: it brings PyTorch with it."""
    if name == "merge":
        from biomistral.merging.step import merge

        return merge
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
