"""What questions to served models will cost, before any of them is asked.

Reads the questions of the recipe and the replies that a run has kept; sends nothing. Knows nothing
about how a run is shown or confirmed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from biomistral.pipeline import making
from biomistral.progress import ignore
from biomistral.recipe.settings import EndpointModel, Recipe

if TYPE_CHECKING:
    from biomistral.models.endpoints.cost import Estimate


def expected_costs(recipe: Recipe, root: Path) -> dict[str, Estimate]:
    """Estimate what is left to ask of each served model that is evaluated, by its name.

    ``root`` is the folder of the run. Raises ``InputError`` as reading the questions does.
    """
    settings = recipe.evaluate
    evaluated = settings.models if settings else []
    served = {name: recipe.models[name] for name in evaluated if name in recipe.models}
    endpoints = {name: m for name, m in served.items() if isinstance(m, EndpointModel)}
    if settings is None or not endpoints:
        return {}
    from biomistral.artifacts import Origin
    from biomistral.benchmark import build_requests, build_validation_requests
    from biomistral.evaluation.endpoints.engine import EndpointEngine
    from biomistral.records import Question, read_records

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "questions"
        making.questions(recipe.benchmark, settings)(out, Origin("questions", "q", {}), ignore)
        questions = list(read_records(out / "questions.parquet", Question))
    requests = [
        *build_requests(questions, settings),
        *build_validation_requests(questions, settings),
    ]
    return {
        name: EndpointEngine(endpoint, root / "units").foresee(requests)
        for name, endpoint in endpoints.items()
    }
