"""Invented answers of invented models, small enough to work out by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from biomistral.records import Prediction, Question, Task, write_records


def prediction_of(
    question_id: str = "q1",
    logprobs: tuple[float, ...] = (-1.0, -2.0),
    *,
    gold: int = 0,
    task: str = "plants",
    language: str = "en",
    seed: int = 1,
    scoring: str = "letter",
    model: str = "one",
) -> Prediction:
    return Prediction(question_id, task, language, model, 3, seed, scoring, logprobs, gold)  # type: ignore[arg-type]


@pytest.fixture
def prediction() -> Callable[..., Prediction]:
    return prediction_of


@pytest.fixture
def write_predictions(tmp_path) -> Callable[..., Path]:
    """Return a function name, predictions -> folder of a predictions artefact (without manifest)."""

    def write(name: str, predictions: Iterable[Prediction]) -> Path:
        folder = tmp_path / "predictions" / name
        folder.mkdir(parents=True, exist_ok=True)
        write_records(folder / "predictions.parquet", predictions, Prediction)
        return folder

    return write


@pytest.fixture
def random_predictions() -> Callable[..., list[Prediction]]:
    """Return a function seed -> answers to two tasks of 2 to 5 choices, with two seeds each."""

    def make(seed: int = 0, *, scoring: str = "letter") -> list[Prediction]:
        generator = np.random.default_rng(seed)
        golds = np.random.default_rng(99)
        predictions = []
        for task, count in (("plants", 40), ("rivers", 25)):
            gold = [int(golds.integers(2 + index % 4)) for index in range(count)]
            for shots_seed in (1, 2):
                for index in range(count):
                    values = np.log(generator.dirichlet(np.ones(4 + index % 4))[: 2 + index % 4])
                    predictions.append(
                        prediction_of(
                            f"{task}-{index}",
                            tuple(values.tolist()),
                            gold=gold[index],
                            task=task,
                            seed=shots_seed,
                            scoring=scoring,
                        )
                    )
        return predictions

    return make


@pytest.fixture
def write_questions(tmp_path) -> Callable[..., Path]:
    """Return a function predictions -> folder with the questions they answer and their tasks."""

    def write(predictions: Iterable[Prediction], groups: dict[str, str] | None = None) -> Path:
        folder = tmp_path / "questions"
        folder.mkdir(exist_ok=True)
        facts = {
            (p.task, p.language, p.question_id): (p.gold, len(p.logprobs)) for p in predictions
        }
        questions = [
            Question(name, task, language, "test", "What is it?", tuple("ABCDE"[:count]), gold)
            for (task, language, name), (gold, count) in facts.items()
        ]
        write_records(folder / "questions.parquet", questions, Question)
        tasks = [
            Task(name, name.title(), (groups or {}).get(name, "medical"), "invented", "CC0")
            for name in dict.fromkeys(question.task for question in questions)
        ]
        write_records(folder / "tasks.parquet", tasks, Task)
        return folder

    return write
