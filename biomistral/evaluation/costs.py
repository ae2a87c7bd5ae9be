"""The edge of measuring costs: models in, one file of numbers out.

    costs.volatile.json   a list, one object per model, with the fields of ``models.costs.Cost``

Times differ from run to run, so they are in a file of the kind that counts as no result. Knows
nothing about answers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from biomistral import artifacts, versions
from biomistral.artifacts import Origin
from biomistral.models.costs import CostSettings, measure_apart
from biomistral.progress import Progress, ignore
from biomistral.recipe.settings import EvaluateSettings

COSTS = "costs.volatile.json"


def measure_costs(
    settings: EvaluateSettings,
    models: Mapping[str, Path],
    out: Path,
    *,
    how: CostSettings | None = None,
    origin: Origin | None = None,
    progress: Progress = ignore,
) -> Path:
    """Measure what each model costs, one after the other, and write the numbers to ``out``.

    Raises ``InputError`` or ``ModelError``, with the model's name, if one cannot be measured.
    """
    how = how or CostSettings(precision=settings.precision)
    origin = origin or Origin(
        "scores",
        out.name,
        {"precision": settings.precision},
        {name: artifacts.fingerprint_of_files([path]) for name, path in models.items()},
        versions.STEP_VERSIONS["cost"],
    )
    costs = []
    with artifacts.create(out, origin) as draft:
        for index, (name, folder) in enumerate(models.items()):
            progress(index, len(models), f"models, {name}")
            costs.append(measure_apart(name, folder, how))
        artifacts.write_json(draft.folder / COSTS, [dataclasses.asdict(cost) for cost in costs])
        draft.counts["models"] = len(costs)
    return out
