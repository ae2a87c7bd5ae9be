"""Benchmark: published question files and a user's own tasks, as questions and as prompts.

``load_questions`` makes the ``questions`` artefact; ``build_requests`` turns questions into the
prompts of an evaluation. Knows nothing about models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from biomistral.benchmark.prompts import build_requests
    from biomistral.benchmark.questions import find_question_files, load_questions

__all__ = ["build_requests", "find_question_files", "load_questions"]


def __getattr__(name: str) -> Any:
    """Import the function asked for, and only then what it needs (PEP 562)."""
    if name == "build_requests":
        from biomistral.benchmark import prompts

        return prompts.build_requests
    if name in {"find_question_files", "load_questions"}:
        from biomistral.benchmark import questions

        return getattr(questions, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
