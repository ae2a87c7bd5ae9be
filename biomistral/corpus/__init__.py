"""From articles and plain texts to packed rows of tokens.

Light to import; what it exports is loaded when first asked for (PEP 562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from biomistral.corpus.build import build_corpus, iterate_texts
    from biomistral.corpus.export import export_rows
    from biomistral.corpus.sources import source_files

__all__ = ["build_corpus", "export_rows", "iterate_texts", "source_files"]

# Planning a run asks for source_files only: it must not wait for tokenizers to load.
_MODULES = {
    "build_corpus": "build",
    "export_rows": "export",
    "iterate_texts": "build",
    "source_files": "sources",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
