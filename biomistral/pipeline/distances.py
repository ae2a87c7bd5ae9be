"""The steps that measure how far models are from those they were made from, one for each model.

Part of ``plan``, which knows the other steps. Quantized models are left out: their weights are no
plain numbers, and what they lose is measured otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from biomistral.artifacts import Origin
from biomistral.pipeline.builder import Builder
from biomistral.pipeline.places import Place
from biomistral.pipeline.steps import Make
from biomistral.progress import Progress
from biomistral.recipe import links
from biomistral.recipe.quantizing import Quantization


def add_distances(builder: Builder) -> dict[str, Path]:
    """Add a step for each trained or merged model; return their folders by model."""
    folders = {}
    for _, entry in links.model_entries(builder.recipe):
        if isinstance(entry, Quantization) or not links.makes_model(entry):
            continue
        others = links.models_used(entry)
        folders[entry.name] = builder.root / f"distances/{entry.name}"
        builder.add(
            "distances",
            entry.name,
            {"model": entry.name, "others": others},
            code="distances",
            make=_measure(
                entry.name,
                builder.model(entry.name),
                {name: builder.model(name) for name in others},
            ),
            section="evaluate",
            **builder.model_inputs([entry.name, *others]),
        )
    return folders


def _measure(name: str, model: Place, others: Mapping[str, Place]) -> Make:
    def make(out: Path, origin: Origin, progress: Progress) -> None:
        from biomistral.merging import measure_distances

        folders = {other: place.folder() for other, place in others.items()}
        measure_distances(name, model.folder(), folders, out, origin=origin, progress=progress)

    return make
