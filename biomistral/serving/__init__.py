"""Serving: one model behind an HTTP interface that OpenAI's clients understand, and a chat page.

``serve`` opens a model and answers until it is told to stop. Thin: what a model says comes from the
generation engine (``models.generating``), what it holds for likely from the engine of evaluation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from biomistral.serving.options import ServeOptions
    from biomistral.serving.running import serve

__all__ = ["ServeOptions", "serve"]


def __getattr__(name: str) -> Any:
    """Import what is asked for, and only then what it needs (PEP 562)."""
    if name == "ServeOptions":
        from biomistral.serving.options import ServeOptions

        return ServeOptions
    if name == "serve":
        from biomistral.serving.running import serve

        return serve
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
