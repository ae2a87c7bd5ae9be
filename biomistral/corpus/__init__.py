"""From articles and plain texts to packed rows of tokens.

Light to import; what it exports is loaded when first asked for (PEP 562).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from biomistral.corpus.build import build_corpus, iterate_texts, source_paths

__all__ = ["build_corpus", "iterate_texts", "source_paths"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from biomistral.corpus import build

    return getattr(build, name)
