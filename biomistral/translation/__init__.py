"""Translation: the questions of a task in further languages, checked, with what failed listed.

``translate_questions`` makes the ``translations`` artefact, which the benchmark reads as tasks of
its own; ``measure_quality`` says how good it is; ``write_review`` and ``apply_review`` let people
correct it. Knows nothing about where questions come from or how they are asked.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from biomistral.translation.quality import measure_quality
    from biomistral.translation.review import apply_review, write_review
    from biomistral.translation.step import translate_questions

__all__ = ["apply_review", "measure_quality", "translate_questions", "write_review"]

_MODULES = {
    "apply_review": "review",
    "measure_quality": "quality",
    "translate_questions": "step",
    "write_review": "review",
}


def __getattr__(name: str) -> Any:
    """Import the function asked for, and only then what it needs (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
