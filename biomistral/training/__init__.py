"""Training: continued pre-training, fine-tuning and preference tuning.

from biomistral.training import fine_tune, prefer, pretrain
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from biomistral.training.conversations import find_data_files, read_conversations, read_pairs
    from biomistral.training.fine_tuning import fine_tune
    from biomistral.training.preferring import prefer
    from biomistral.training.pretraining import pretrain

__all__ = ["find_data_files", "fine_tune", "prefer", "pretrain", "read_conversations", "read_pairs"]

_MODULES = {
    "find_data_files": "conversations",
    "read_conversations": "conversations",
    "read_pairs": "conversations",
    "fine_tune": "fine_tuning",
    "prefer": "preferring",
    "pretrain": "pretraining",
}


def __getattr__(name: str) -> Any:
    """Load a step only when it is asked for: it brings torch and transformers (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Transformers imports PEFT, and that bitsandbytes, which warns of a library nobody asked for.
    log = logging.getLogger("bitsandbytes")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    finally:
        log.setLevel(level)
