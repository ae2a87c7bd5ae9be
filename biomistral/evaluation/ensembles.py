"""Ensembles: a model that does not exist, made of the answers of several.

    mean      mean of the probabilities, as published: with letter scoring those of the letters over
              the whole vocabulary, whose sum ranks choices (BioMistral, arXiv 2402.10373)
    logits    mean of the log-probabilities: one model that is sure a choice is wrong can veto it
    accuracy  mean of the probabilities, weighted by each model's accuracy on other questions
    fitted    the same with the weights that make the right answers likeliest, found by expectation
              maximisation on other questions
    majority  each model has a vote; of equally many votes the mean probability decides

An ensemble of one is that model, whatever the method. With cloze scoring a log-probability per byte
has no scale that two models share, so probabilities are first divided by their sum over the
choices; so they are for votes and weights.

*Other questions* are validation questions if there are any, else the other folds of the same task
in the same language (calibration.py).

Shapes: K models, S seeds, Q questions, C choices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from biomistral import artifacts
from biomistral.artifacts import Origin
from biomistral.errors import InputError, did_you_mean
from biomistral.evaluation.calibration import LEAST_VALIDATION, folds
from biomistral.evaluation.columns import (
    PREDICTIONS,
    VALIDATION,
    Cell,
    CellKey,
    Floats,
    Ints,
    check_same_questions,
    read_cells,
    read_validation,
    words,
)
from biomistral.evaluation.metrics import correct, renormalised
from biomistral.recipe.settings import EnsembleSettings
from biomistral.records import UNSAID, Prediction, Scoring, write_records


def ensemble(
    settings: EnsembleSettings,
    predictions: Mapping[str, Path],
    out: Path,
    *,
    origin: Origin | None = None,
) -> Path:
    """Combine the predictions of ``settings.models`` into those of the ensemble, at ``out``.

    ``predictions`` has the folder of each model's predictions by the model's name; more may be
    there. Models are weighed by their answers to validation questions of the same task, where there
    are enough. Raises ``InputError`` if a model is missing, if the models did not answer the same
    questions with the same seeds, or if one answered in words and is to be given a weight.
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
    _check_probabilities(settings, cells)
    validation = {model: read_validation(path, model) for model, path in used.items()}
    check_same_questions(validation, partial=True)
    _check_probabilities(settings, validation)
    with artifacts.create(out, origin) as draft:
        records = _records(settings, cells, validation)
        draft.counts["predictions"] = write_records(draft.folder / PREDICTIONS, records, Prediction)
        records = _records(settings, validation, validation)
        if number := write_records(draft.folder / VALIDATION, records, Prediction):
            draft.counts["validation_predictions"] = number
        else:
            (draft.folder / VALIDATION).unlink()
    return out


def combined(
    logprobs: Floats,
    scoring: str,
    method: str = "mean",
    weights: Floats | None = None,
) -> Floats:
    """Combine K models' log-probabilities: (K, S, Q, C) to (S, Q, C).

    ``weights`` are (K,) or (K, Q), of any sum above 0; without them all count the same.
    """
    if len(logprobs) == 1:
        alone: Floats = logprobs[0]
        return alone
    if method == "logits":
        means: Floats = (_divided_by_sum(logprobs) if scoring == "cloze" else logprobs).mean(axis=0)
        return means
    if method == "majority":
        return _votes(logprobs)
    if weights is None:
        return mean_logprobs(logprobs, scoring)
    shares = weights / weights.sum(axis=0)
    shares = shares.reshape(len(shares), 1, -1, 1)
    with np.errstate(divide="ignore"):  # -inf where a question has fewer choices
        weighed: Floats = np.log((shares * np.exp(_divided_by_sum(logprobs))).sum(axis=0))
    return weighed


def mean_logprobs(logprobs: Floats, scoring: str) -> Floats:
    """Return the log of the mean of K models' probabilities: (K, S, Q, C) to (S, Q, C)."""
    if scoring == "cloze":
        logprobs = _divided_by_sum(logprobs)
    highest = logprobs.max(axis=0)
    highest = np.where(np.isfinite(highest), highest, 0.0)
    with np.errstate(divide="ignore"):  # -inf where a question has fewer choices
        means: Floats = highest + np.log(np.exp(logprobs - highest).mean(axis=0))
    return means


def fitted_weights(of_gold: Floats) -> Floats:
    """Weights of a mixture that make N right choices likeliest, from their probabilities.

    (K, N) to (K,), of sum 1. The likelihood is concave, so where it starts does not matter.
    """
    weights = np.full(len(of_gold), 1 / len(of_gold))
    if not of_gold.size:
        return weights
    for _ in range(200):
        shares = weights[:, None] * of_gold
        new = (shares / shares.sum(axis=0)).mean(axis=1)
        moved = float(np.abs(new - weights).max())
        weights = new
        if moved < 1e-6:
            break
    return weights


def weights_of(logprobs: Floats, gold: Ints, method: str) -> Floats:
    """Weights of K models from their answers: (K, S, Q, C) and (Q,) to (K,), of sum 1."""
    if method == "fitted":
        probabilities = renormalised(logprobs)
        of_gold = np.take_along_axis(
            probabilities, np.broadcast_to(gold, logprobs.shape[:-1])[..., None], axis=-1
        )
        return fitted_weights(np.maximum(of_gold.reshape(len(logprobs), -1), 1e-12))
    accuracy = correct(logprobs, gold).reshape(len(logprobs), -1).sum(axis=1) + 1  # never all 0
    weights: Floats = accuracy / accuracy.sum()
    return weights


def cross_weights(logprobs: Floats, gold: Ints, fold: Ints, method: str) -> Floats:
    """Weights for each question from the questions of other folds.  # (K, Q)."""
    weights = np.empty((len(logprobs), len(gold)))
    for number in np.unique(fold):
        mine = fold == number
        weights[:, mine] = weights_of(logprobs[:, :, ~mine], gold[~mine], method)[:, None]
    return weights


def _divided_by_sum(logprobs: Floats) -> Floats:
    highest = logprobs.max(axis=-1, keepdims=True)
    normalised: Floats = logprobs - (
        highest + np.log(np.exp(logprobs - highest).sum(axis=-1, keepdims=True))
    )
    return normalised


def _votes(logprobs: Floats) -> Floats:
    """Share of the votes, with the mean probability as one more vote that is split.  # (S, Q, C).

    Who answers in words and names no choice has no vote. Where anybody answers in words, so does the
    ensemble: it names a choice and gives no probabilities.
    """
    said = (logprobs.max(axis=-1) > UNSAID)[..., None]  # (K, S, Q, 1)
    answers = logprobs.argmax(axis=-1)[..., None]
    votes = (said & (answers == np.arange(logprobs.shape[-1]))).sum(axis=0)
    mean = (said * renormalised(logprobs)).mean(axis=0)
    is_there = np.isfinite(logprobs[0])
    if (logprobs == UNSAID).any():
        chosen = (votes + mean).argmax(axis=-1)[..., None] == np.arange(logprobs.shape[-1])
        in_words = np.where(chosen & said.any(axis=0), 0.0, UNSAID)
        return np.where(is_there, in_words, -np.inf)
    floor = np.where(is_there, 1e-12, 0.0)  # a logarithm must exist
    with np.errstate(divide="ignore"):
        shares: Floats = np.log((votes + np.maximum(mean, floor)) / (len(logprobs) + 1))
    return shares


def _check_probabilities(
    settings: EnsembleSettings, cells: Mapping[str, Mapping[CellKey, Cell]]
) -> None:
    """Raise ``InputError`` if probabilities are to be combined and a model has given none."""
    if settings.method == "majority":
        return
    for model in settings.models:
        wordy = next((key for key, cell in cells[model].items() if cell.in_words), None)
        if wordy is not None:
            raise InputError(
                f"ensemble {settings.name!r}: {model!r} has answered {words(wordy)} in words, which "
                f"have no probabilities to combine by the method {settings.method}; use method: "
                "majority, or leave the model out"
            )


def _weights(
    settings: EnsembleSettings,
    stacked: Floats,
    cell: Cell,
    others: Sequence[Cell],
) -> Floats | None:
    """Weights of the models of a cell, from validation questions or across folds."""
    if settings.method not in {"accuracy", "fitted"}:
        return None
    if others and len(others[0].gold) >= LEAST_VALIDATION:
        answers = np.stack([other.logprobs for other in others])
        return weights_of(answers, others[0].gold, settings.method)
    return cross_weights(stacked, cell.gold, folds(cell.question_ids), settings.method)


def _records(
    settings: EnsembleSettings,
    cells: Mapping[str, Mapping[CellKey, Cell]],
    validation: Mapping[str, Mapping[CellKey, Cell]],
) -> Iterator[Prediction]:
    """Answers of the ensemble to all questions that every model has answered."""
    for key, cell in cells[settings.models[0]].items():
        if any(key not in cells[model] for model in settings.models):
            continue
        stacked = np.stack([cells[model][key].logprobs for model in settings.models])
        others = [by_key[key] for by_key in validation.values() if key in by_key]
        others = others if len(others) == len(settings.models) else []
        weights = _weights(settings, stacked, cell, others)
        means = np.minimum(combined(stacked, key.scoring, settings.method, weights), 0.0)
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
