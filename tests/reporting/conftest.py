"""A small run of invented numbers: two tasks and a general one, two languages, odd names."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from biomistral import artifacts
from biomistral.artifacts import Origin
from biomistral.models.cards import Card, write_card
from biomistral.records import (
    Prediction,
    Question,
    ReliabilityBin,
    Score,
    Task,
    TaskOverlap,
    write_records,
)

BASE, TRAINED, RANDOM = "base", "tr_ained <b>&|% $x$", "random choice"
TASKS = [
    Task("anatomy", "Anatomy & more", "medical", "invented_source", "CC-BY"),
    Task("heart", "Heart", "medical", "invented", "MIT", "100 % invented"),
    Task("world", "World", "general", "invented", "MIT"),
]


@pytest.fixture(scope="session")
def make_score():
    """Return a function that makes a score with an interval of ± 0.05 around an accuracy."""

    def make(model: str, task: str, value: float, **changes: object) -> Score:
        kind = "baseline" if model == RANDOM else "model"
        group = "general" if task == "world" else "medical"
        values = {
            "model": model,
            "model_kind": kind,
            "task": task,
            "group": group,
            "language": "en",
            "scoring": "letter",
            "shots": 3,
            "metric": "accuracy",
            "value": value,
            "low": None if kind == "baseline" else value - 0.05,
            "high": None if kind == "baseline" else value + 0.05,
            "num_questions": 100,
            "num_seeds": 3,
        }
        return Score(**{**values, **changes})  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def tasks() -> list[Task]:
    return TASKS


@pytest.fixture(scope="session")
def scores(make_score) -> list[Score]:
    """Scores in English and Arabic; the trained model lacks the general task in Arabic."""
    found = []
    for language, penalty in (("en", 0.0), ("ar", 0.2)):
        for model, gain in ((BASE, 0.0), (TRAINED, 0.02), (RANDOM, -0.25)):
            values = {"anatomy": 0.5 + gain, "heart": 0.6 + gain, "world": 0.7 - gain}
            values["average"] = (values["anatomy"] + values["heart"]) / 2
            for task, value in values.items():
                if (language, model, task) == ("ar", TRAINED, "world"):
                    continue
                found.append(make_score(model, task, value - penalty, language=language))
            world = make_score(model, "world", 0.7 - gain - penalty, language=language)
            found.append(
                make_score(model, "average", world.value, group="general", language=language)
            )
            if model != RANDOM:
                none = {"language": language, "low": None, "high": None}
                found += [
                    make_score(model, task, value, metric=metric, **none)
                    for metric, value in (
                        ("accuracy_deviation", 0.01),
                        ("ece", 0.1),
                        ("odd_one", 2.5),
                    )
                    for task in ("anatomy", "average")
                ]
    return found


@pytest.fixture(scope="session")
def run_folders(tmp_path_factory, scores) -> dict[str, object]:
    """Folders of a whole invented run, as keyword arguments of ``report``."""
    root = tmp_path_factory.mktemp("run")
    models = {BASE: root / "base", TRAINED: root / "trained", "elsewhere": root / "absent"}
    _write_questions(root / "questions")
    for place, model in enumerate((BASE, TRAINED)):
        _write_predictions(root / f"predictions-{place}", model, top=place)
    with artifacts.create(root / "scores", Origin("scores", "scores", {})) as draft:
        write_records(draft.folder / "scores.parquet", scores, Score)
        bins = [
            ReliabilityBin(
                m, "average", "medical", "en", "letter", low, low + 0.5, n, low + 0.2, 0.4
            )
            for m in (BASE, TRAINED)
            for low, n in ((0.0, 0), (0.5, 200))
        ]
        write_records(draft.folder / "reliability.parquet", bins, ReliabilityBin)
    base = Origin("model", BASE, {})
    with artifacts.create(root / "base", base) as draft:
        write_card(draft.folder, Card(BASE, (), None, "Made up."))
    settings = {"model": BASE, "learning_rate": 1e-3}
    with artifacts.create(
        root / "trained", Origin("model", TRAINED, settings, {"model": base.fingerprint})
    ) as draft:
        write_card(draft.folder, Card(TRAINED, (BASE,), "finetune", "Made up and trained."))
        _write_log(draft.folder / "training_log.jsonl")
    with artifacts.create(root / "tokens", Origin("tokens", "pmc", {})) as draft:
        draft.counts = {"tokens": 1234, "by_language": {"en": 3}, "dropped": {"too_short": 2}}
    with artifacts.create(root / "overlap", Origin("overlap", "pmc", {})) as draft:
        found = [TaskOverlap("trial", "en", 40, 13, 2, 1, ("q1", "q2"))]
        write_records(draft.folder / "overlap.parquet", found, TaskOverlap)
    return {
        "title": "A run of <invented> numbers",
        "scores": root / "scores",
        "questions": root / "questions",
        "models": models,
        "corpora": {"pmc": root / "tokens"},
        "overlaps": {"pmc": root / "overlap"},
        "predictions": {BASE: root / "predictions-0", TRAINED: root / "predictions-1"},
    }


def _write_questions(folder: Path) -> None:
    stems = {"en": "Which <i>bone</i> is it?", "ar": "أي عظم هو؟"}
    questions = [
        Question(f"{task.name}-1", task.name, language, "test", stem, ("one", "two"), 1)
        for language, stem in stems.items()
        for task in TASKS
    ]
    with artifacts.create(folder, Origin("questions", "questions", {})) as draft:
        write_records(draft.folder / "questions.parquet", questions, Question)
        write_records(draft.folder / "tasks.parquet", TASKS, Task)


def _write_predictions(folder: Path, model: str, *, top: int) -> None:
    logprobs = tuple(math.log(0.6 if index == top else 0.2) for index in range(2))
    predictions = [
        Prediction(f"{task.name}-1", task.name, language, model, 3, seed, "letter", logprobs, 1)
        for language in ("en", "ar")
        for task in TASKS
        for seed in (1, 2)
    ]
    with artifacts.create(folder, Origin("predictions", model, {"top": top})) as draft:
        write_records(draft.folder / "predictions.parquet", predictions, Prediction)


def _write_log(path: Path) -> None:
    lines = [
        {"step": step, "tokens": 100 * step, "loss": 3.0 / step, "learning_rate": 1e-3}
        for step in range(1, 6)
    ]
    lines[-1] |= {"loss": None, "held_out_loss": {"pmc": 1.25}}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
