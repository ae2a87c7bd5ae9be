"""Merging: one model from several, tensor by tensor; mergekit's configurations run as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from biomistral.merging.distances import measure_distances
    from biomistral.merging.step import MergeOptions, merge, merge_config

__all__ = ["MergeOptions", "measure_distances", "merge", "merge_config"]


def __getattr__(name: str) -> Any:
    """Import what is asked for only then."""
    if name == "measure_distances":
        from biomistral.merging import distances

        return distances.measure_distances
    if name in __all__:
        from biomistral.merging import step

        return getattr(step, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
