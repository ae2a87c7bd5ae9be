"""The edge of scoring: predictions and questions in, a table of scores out.

    scores.parquet       Score, one line per model, task and metric
    reliability.parquet  ReliabilityBin, before and after calibrating
    coverage.parquet     CoveragePoint
    comparisons.parquet  Comparison, every pair of models
    languages.parquet    LanguageGap, every language against English
    calibration/*.json   what calibrates each model, for later use (models.calibrations)

What the numbers mean is in ``measures``, ``metrics`` and ``comparison``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from urllib.parse import quote

from biomistral import artifacts
from biomistral.artifacts import Origin
from biomistral.errors import InputError, did_you_mean
from biomistral.evaluation import score_rows
from biomistral.evaluation.columns import (
    Cell,
    CellKey,
    check_same_questions,
    read_cells,
    read_validation,
)
from biomistral.evaluation.comparison import compare, compare_languages
from biomistral.models import calibrations
from biomistral.models.calibrations import SavedFit
from biomistral.records import (
    Comparison,
    CoveragePoint,
    LanguageGap,
    Question,
    ReliabilityBin,
    Score,
    Task,
    read_records,
    write_records,
)

QUESTIONS = "questions.parquet"
TASKS = "tasks.parquet"
SCORES = "scores.parquet"
RELIABILITY = "reliability.parquet"
COVERAGE = "coverage.parquet"
COMPARISONS = "comparisons.parquet"
LANGUAGES = "languages.parquet"
CALIBRATION = "calibration"


def score(
    predictions: Mapping[str, Path],
    questions: Path,
    out: Path,
    *,
    seed: int = 42,
    ensembles: Collection[str] = (),
    saved: Mapping[str, Path] | None = None,
    origin: Origin | None = None,
) -> Path:
    """Score the predictions of all models against the questions they answer.

    ``predictions`` has the folder of each model's predictions by its name, in table order, those of
    ``ensembles`` among them; ``questions`` is a folder of questions and tasks; ``seed`` draws the
    resamples of the intervals. Calibration is fitted on the answers to validation questions that lie
    beside the predictions, where there are enough of a group of tasks, else cross-fitted; ``saved``
    has files of what calibrates some models already.

    Raises ``InputError`` if files are missing or broken, if the models
    did not answer the same questions, or if these are not those of ``questions``.
    """
    if not predictions:
        raise InputError("scores: there are no predictions to score; evaluate a model first")
    origin = origin or Origin(
        kind="scores",
        name=out.name,
        settings={"seed": seed, "ensembles": sorted(ensembles), "models": list(predictions)},
        inputs={
            "questions": artifacts.fingerprint_of_files([questions]),
            **{
                f"predictions of {model}": artifacts.fingerprint_of_files([path])
                for model, path in predictions.items()
            },
            **{
                f"calibration of {model}": artifacts.fingerprint_of_files([("", path)])
                for model, path in (saved or {}).items()
            },
        },
    )
    cells = {model: read_cells(path, model) for model, path in predictions.items()}
    check_same_questions(cells)
    groups = {task.name: task.group for task in read_records(questions / TASKS, Task)}
    _check_answers_questions(next(iter(cells.values())), questions, groups)
    fitted = {
        model: score_rows.fit_calibrators(
            own,
            groups,
            read_validation(predictions[model], model),
            _read_saved((saved or {}).get(model)),
        )
        for model, own in cells.items()
    }
    calibrators = {model: of_cells for model, (of_cells, _) in fitted.items()}
    with artifacts.create(out, origin) as draft:
        rows = score_rows.scores(
            cells, groups, seed=seed, ensembles=ensembles, calibrators=calibrators
        )
        bars = score_rows.reliability_bins(cells, groups, calibrators)
        points = score_rows.coverage_points(cells, groups)
        pairs = compare(cells, groups, seed=seed)
        gaps = compare_languages(cells, groups, seed=seed)
        folder = draft.folder
        draft.counts["scores"] = write_records(folder / SCORES, rows, Score)
        draft.counts["reliability_bins"] = write_records(folder / RELIABILITY, bars, ReliabilityBin)
        write_records(folder / COVERAGE, points, CoveragePoint)
        draft.counts["comparisons"] = write_records(folder / COMPARISONS, pairs, Comparison)
        write_records(folder / LANGUAGES, gaps, LanguageGap)
        (folder / CALIBRATION).mkdir()
        for model, (_, fits) in fitted.items():
            calibrations.write(calibration_file(folder, model), model, fits)
        draft.counts["answers"] = sum(
            cell.logprobs[..., 0].size for by_key in cells.values() for cell in by_key.values()
        )
    return out


def calibration_file(scores: Path, model: str) -> Path:
    """Where the calibration of a model lies in a folder of scores; safe for any name."""
    return scores / CALIBRATION / f"{quote(model, safe=' ')}.json"


def _read_saved(path: Path | None) -> list[SavedFit]:
    """Fits that may be applied to test questions; raises ``InputError`` for one fitted on such."""
    fits = calibrations.read(path)[1] if path else []
    for fit in fits:
        if fit.fitted_on != "validation":
            raise InputError(
                f"{path}: was fitted on {fit.fitted_on} questions ({fit.group}, {fit.language}), "
                "which may be those that are asked here; use calibration: fitted"
            )
    return fits


def _check_answers_questions(
    cells: Mapping[CellKey, Cell], folder: Path, groups: Mapping[str, str]
) -> None:
    """Raise ``InputError`` unless every answered question is a test question of ``folder``."""
    facts = {
        (question.task, question.language, question.id): (question.gold, len(question.choices))
        for question in read_records(folder / QUESTIONS, Question)
        if question.split == "test"
    }
    for key, cell in cells.items():
        if key.task not in groups:
            raise InputError(
                f"{folder / TASKS}: has no task {key.task!r}, which was answered"
                f"{did_you_mean(key.task, groups)}; name the questions that were answered"
            )
        answered = zip(
            cell.question_ids, cell.gold.tolist(), cell.num_choices.tolist(), strict=True
        )
        for name, gold, num_choices in answered:
            fact = facts.get((key.task, key.language, name))
            if fact is None:
                raise InputError(
                    f"{folder / QUESTIONS}: has no test question {name!r} of {key.task} "
                    f"({key.language}), which was answered; name the questions that were answered"
                )
            if fact != (gold, num_choices):
                raise InputError(
                    f"{folder / QUESTIONS}: question {name!r} of {key.task} ({key.language}) has "
                    f"{fact[1]} choices and the right index {fact[0]}, the predictions have "
                    f"{num_choices} and {gold}; the questions changed since: evaluate again"
                )
