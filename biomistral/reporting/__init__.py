"""The report of a run: one page a person reads, and the same numbers as Markdown, LaTeX and CSV.

``from biomistral.reporting import report``; importing this package loads no plotting library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from biomistral.reporting.run_report import report, report_runs

__all__ = ["report", "report_runs"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        import importlib

        return getattr(importlib.import_module("biomistral.reporting.run_report"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
