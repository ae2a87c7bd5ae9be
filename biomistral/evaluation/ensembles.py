"""Ensembles: a model that does not exist, the mean of several models' probabilities.

With letter scoring the probabilities are those of the letters over the whole vocabulary, as the
models gave them; their mean ranks choices as the published sum does (BioMistral, arXiv 2402.10373).
With cloze scoring a log-probability per byte has no scale that two models share, so probabilities
are first divided by their sum over the choices.

Shapes: K models, S seeds, Q questions, C choices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import numpy as np

from biomistral import artifacts
from biomistral.artifacts import Origin
from biomistral.errors import InputError, did_you_mean
from biomistral.evaluation.columns import (
    PREDICTIONS,
    Cell,
    CellKey,
    Floats,
    check_same_questions,
    read_cells,
)
from biomistral.recipe.settings import EnsembleSettings
from biomistral.records import Prediction, Scoring, write_records


def ensemble(
    settings: EnsembleSettings,
    predictions: Mapping[str, Path],
    out: Path,
    *,
    origin: Origin | None = None,
) -> Path:
    """Combine the predictions of ``settings.models`` into those of the ensemble, at ``out``.

    ``predictions`` has the folder of each model's predictions by the model's name; more may be
    there. Raises ``InputError`` if one is missing, or if the models did not answer the same
    questions with the same seeds.
    """
    for model in settings.models:
        if model not in predictions:
            raise InputError(
                f"ensemble {settings.name!r}: there are no predictions of {model!r}"
                f"{did_you_mean(model, predictions)}; evaluate that model first"
            )
    used = {model: predictions[model] for model in settings.models}
    origin = origin or Origin(
        kind="predictions",
        name=settings.name,
        settings=settings.model_dump(mode="json"),
        inputs={model: artifacts.fingerprint_of_files([path]) for model, path in used.items()},
    )
    cells = {model: read_cells(path, model) for model, path in used.items()}
    check_same_questions(cells)
    with artifacts.create(out, origin) as draft:
        records = _records(settings, cells)
        draft.counts["predictions"] = write_records(draft.folder / PREDICTIONS, records, Prediction)
    return out


def mean_logprobs(logprobs: Floats, scoring: str) -> Floats:
    """Return the log of the mean of K models' probabilities: (K, S, Q, C) to (S, Q, C)."""
    if scoring == "cloze":
        logprobs = _divided_by_sum(logprobs)
    highest = logprobs.max(axis=0)
    highest = np.where(np.isfinite(highest), highest, 0.0)
    with np.errstate(divide="ignore"):  # -inf where a question has fewer choices
        means: Floats = highest + np.log(np.exp(logprobs - highest).mean(axis=0))
    return means


def _divided_by_sum(logprobs: Floats) -> Floats:
    highest = logprobs.max(axis=-1, keepdims=True)
    normalised: Floats = logprobs - (
        highest + np.log(np.exp(logprobs - highest).sum(axis=-1, keepdims=True))
    )
    return normalised


def _records(
    settings: EnsembleSettings, cells: Mapping[str, Mapping[CellKey, Cell]]
) -> Iterator[Prediction]:
    for key, cell in cells[settings.models[0]].items():
        stacked = np.stack([cells[model][key].logprobs for model in settings.models])
        means = mean_logprobs(stacked, key.scoring)
        for seed_index, seed in enumerate(cell.seeds):
            rows = zip(
                cell.question_ids,
                cell.num_choices.tolist(),
                means[seed_index].tolist(),
                cell.gold.tolist(),
                strict=True,
            )
            for question_id, num_choices, row, gold in rows:
                yield Prediction(
                    question_id=question_id,
                    task=key.task,
                    language=key.language,
                    model=settings.name,
                    shots=key.shots,
                    seed=seed,
                    scoring=cast("Scoring", key.scoring),
                    logprobs=tuple(row[:num_choices]),
                    gold=gold,
                )
