"""Evaluation: from requests to predictions, from predictions to scores.

    predict   a model and requests        -> predictions
    ensemble  predictions of many models  -> predictions
    score     predictions and questions   -> scores, with intervals and calibration

    measure_costs   models -> memory and speed of each

How prompts are made is not known here, nor how tables look.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from biomistral.evaluation.costs import measure_costs
    from biomistral.evaluation.ensembles import ensemble
    from biomistral.evaluation.prediction import Asked, Keeping, predict
    from biomistral.evaluation.scores import score

__all__ = ["Asked", "Keeping", "ensemble", "measure_costs", "predict", "score"]

_MODULES = {
    "Asked": "prediction",
    "Keeping": "prediction",
    "ensemble": "ensembles",
    "measure_costs": "costs",
    "predict": "prediction",
    "score": "scores",
}


def __getattr__(name: str) -> Any:
    """Import the function asked for, and only then PyTorch and Arrow (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
