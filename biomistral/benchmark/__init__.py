"""Benchmark: published question files and a user's own tasks, as questions and as prompts.

``load_questions`` makes the ``questions`` artefact; ``build_requests`` turns questions into the
prompts of an evaluation; ``show_question`` shows one of them to a person.
``load_training_questions`` and ``training_requests`` do the same for what is learned from. Knows
nothing about models.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from biomistral.benchmark.overlap import find_overlap
    from biomistral.benchmark.prompts import build_requests, build_validation_requests
    from biomistral.benchmark.questions import find_question_files, load_questions
    from biomistral.benchmark.showing import show_question
    from biomistral.benchmark.teaching import (
        find_training_files,
        load_training_questions,
        training_requests,
    )

__all__ = [
    "build_requests",
    "build_validation_requests",
    "find_overlap",
    "find_question_files",
    "find_training_files",
    "load_questions",
    "load_training_questions",
    "show_question",
    "training_requests",
]

_MODULES = {
    "build_requests": "prompts",
    "build_validation_requests": "prompts",
    "find_overlap": "overlap",
    "find_question_files": "questions",
    "load_questions": "questions",
    "show_question": "showing",
    "find_training_files": "teaching",
    "load_training_questions": "teaching",
    "training_requests": "teaching",
}


def __getattr__(name: str) -> Any:
    """Import the function asked for, and only then what it needs (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
