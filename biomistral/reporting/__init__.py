"""The report of a run: one page a person reads, and the same numbers as Markdown, LaTeX and CSV.

``from biomistral.reporting import report``; importing this package loads no plotting library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from biomistral.reporting.run_report import report

__all__ = ["report"]


def __getattr__(name: str) -> Any:
    if name == "report":
        import importlib

        return importlib.import_module("biomistral.reporting.run_report").report
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
