"""Training: continued pre-training on packed rows of tokens.

from biomistral.training import pretrain
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from biomistral.training.pretraining import pretrain

__all__ = ["pretrain"]


def __getattr__(name: str) -> Any:
    """Load the room only when its step is asked for: it brings torch and transformers."""
    if name == "pretrain":
        from biomistral.training.pretraining import pretrain

        return pretrain
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
