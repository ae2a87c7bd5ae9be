from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from biomistral import artifacts
from biomistral.artifacts import Origin
from biomistral.cli.comparing import find_predictions
from biomistral.records import Prediction, Task, write_records


def write_model(folder: Path, ability: float, *, tasks=("heart", "lungs"), gold_shift: int = 0):
    """Invented answers to 60 questions a task with two seeds; ``ability`` is the accuracy."""
    generator = np.random.default_rng(int(100 * ability))
    predictions = []
    for task in tasks:
        for index in range(60):
            gold = (index + gold_shift) % 4
            for seed in (1, 2):
                chosen = gold if generator.random() < ability else (gold + 1) % 4
                logprobs = tuple(np.log([0.7 if c == chosen else 0.1 for c in range(4)]).tolist())
                predictions.append(
                    Prediction(
                        f"{task}-{index}",
                        task,
                        "en",
                        folder.name,
                        3,
                        seed,
                        "letter",
                        logprobs,
                        gold,
                    )
                )
    folder.mkdir(parents=True)
    write_records(folder / "predictions.parquet", predictions, Prediction)
    return folder


@pytest.fixture
def run(tmp_path) -> Path:
    """A run's folder with the predictions of three models."""
    for name, ability in (("good", 0.9), ("middling", 0.6), ("poor", 0.3)):
        write_model(tmp_path / "run/predictions" / name, ability)
    tasks = [Task(name, name.title(), "medical", "invented", "CC0") for name in ("heart", "lungs")]
    (tmp_path / "run/questions/benchmark").mkdir(parents=True)
    write_records(tmp_path / "run/questions/benchmark/tasks.parquet", tasks, Task)
    return tmp_path / "run"


def test_a_run_is_compared_whole(command, run):
    done = command("compare", run, "--resamples", "200")
    assert done.status == 0
    assert "### Medical tasks: English, letter scoring, 3-shot" in done.out
    assert "| Model | Heart | Lungs | Average | Micro average |" in done.out
    assert "| random choice | 25.0 | 25.0 | 25.0 | 25.0 |" in done.out
    assert "| good | **" in done.out
    assert "| middling | *" in done.out
    head = done.out.index("| First | Second | Task |")
    pairs = [line for line in done.out[head:].splitlines() if line.startswith("| ")]
    assert len(pairs) == 2 + 3 * 3
    assert all(line.endswith("| good |") for line in pairs if line.startswith("| good | poor |"))


def test_models_of_a_run_are_chosen_by_name(run):
    found, place = find_predictions([str(run), "poor", "good"])
    assert list(found) == ["poor", "good"]
    assert place == run


def test_models_of_a_run_stand_in_the_order_of_its_tables(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    by_name = sorted(path.name for path in (run / "predictions").iterdir())
    assert list(find_predictions([str(copy)])[0]) == by_name
    wanted = [*by_name[1:], by_name[0]]
    with artifacts.create(
        copy / "scores/scores", Origin("scores", "scores", {"models": wanted[:-1]})
    ):
        pass
    assert list(find_predictions([str(copy)])[0]) == wanted


def test_files_folders_and_new_names_are_taken(run):
    folder = run / "predictions"
    found, place = find_predictions(
        [str(folder / "good"), str(folder / "poor/predictions.parquet"), f"again={folder / 'good'}"]
    )
    assert found == {
        "good": folder / "good",
        "poor": folder / "poor",
        "again": folder / "good",
    }
    assert place is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{run}", "god", "poor"], "has no model 'god'; did you mean \"good\"?"),
        (["{run}", "good"], "names 1 model; wanted are two or more"),
        (["{run}/predictions/good", "{run}/predictions/good"], "two models named 'good'"),
        (["{run}/nothing", "{run}/predictions/good"], "holds no predictions.parquet"),
        (["{run}", "--format", "word"], "--format 'word': is no format"),
    ],
)
def test_what_cannot_be_compared_is_said(command, run, words, message):
    done = command("compare", *(word.format(run=run) for word in words))
    assert done.status == 2
    assert message in done.err


def test_other_questions_and_other_answers_are_refused(command, run, tmp_path):
    other = write_model(tmp_path / "other", 0.5, gold_shift=1)
    done = command("compare", run / "predictions/good", other)
    assert done.status == 2
    assert "disagree on the right answer" in done.err


def test_a_task_that_one_lacks_is_a_dash_and_never_zero(command, run, tmp_path):
    fewer = write_model(tmp_path / "fewer", 0.7, tasks=("heart",))
    done = command("compare", run / "predictions/good", fewer, "--resamples", "100")
    [line] = [line for line in done.out.splitlines() if line.startswith("| fewer |")]
    assert line.count("–") == 3  # the task and both averages
    assert "0.0 " not in line.replace("± 0.0", "")
    assert "lacks a task has no average" in done.out


def test_files_are_written_in_any_format(command, run, tmp_path):
    for form, suffix in (("latex", "tex"), ("csv", "csv"), ("markdown", "md")):
        done = command(
            "compare", run, "--format", form, "--out", tmp_path / form, "--resamples", "100"
        )
        assert done.status == 0
        names = {path.name for path in (tmp_path / form).iterdir()}
        assert names == {
            f"accuracy-medical-en-letter-3shot.{suffix}",
            f"pairs-medical-en-letter-3.{suffix}",
        }
    text = (tmp_path / "latex/accuracy-medical-en-letter-3shot.tex").read_text()
    assert r"\textbf{" in text
    assert r"\underline{" in text
    with (tmp_path / "csv/pairs-medical-en-letter-3.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 9
    assert float(rows[0]["Difference, points"]) > 0
