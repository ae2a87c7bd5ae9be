from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from biomistral.cli.app import app
from biomistral.errors import InputError
from biomistral.evaluation import score
from biomistral.records import Prediction, Question, Task, write_records

MODELS = ("base", "tuned")


def evaluated(root: Path, shift: float) -> Path:
    """A run of ten questions and two models, of which the first is the same in all such runs."""
    questions = [
        Question(f"q{n}", "heart", "en", "test", f"Where {n}?", ("a", "b"), n % 2)
        for n in range(10)
    ]
    write(root / "questions/benchmark", "questions", "questions", questions, Question)
    write_records(
        root / "questions/benchmark/tasks.parquet",
        [Task("heart", "Heart", "medical", "invented", "MIT")],
        Task,
    )
    for model, push in zip(MODELS, (0.0, shift), strict=True):
        found = [
            Prediction(
                q.id, "heart", "en", model, 3, 1, "letter", (-1.0 - push * (n % 3), -1.5), q.gold
            )
            for n, q in enumerate(questions)
        ]
        write(
            root / "predictions" / model, "predictions", "predictions", found, Prediction, mark=push
        )
    folders = {model: root / "predictions" / model for model in MODELS}
    score(folders, root / "questions/benchmark", root / "scores/scores", seed=1, ensembles=[])
    return root


def write(folder: Path, kind: str, stem: str, records, record_type, mark: float = 0.0) -> None:
    folder.mkdir(parents=True)
    write_records(folder / f"{stem}.parquet", records, record_type)
    manifest = {"kind": kind, "fingerprint": f"{folder.name}-{mark}", "settings": {}, "inputs": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    root = tmp_path_factory.mktemp("runs")
    return [evaluated(root / "one", 1.0), evaluated(root / "two", 2.0)]


def call(*words: object):
    return CliRunner().invoke(app, ["report", *map(str, words)])


def test_two_runs_are_reported_side_by_side(runs, tmp_path: Path) -> None:
    done = call(*runs, "--out", tmp_path / "site")
    assert done.exit_code == 0, done.output
    assert "site/index.html" in done.output.replace("\n", "")
    table = (tmp_path / "site/tables/accuracy-medical-en-letter-3shot.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in table[1:4]] == ["base", "tuned (one)", "tuned (two)"]
    index = (tmp_path / "site/questions/index.js").read_text()
    assert [
        index.count(f'"model":"{name}"') for name in ("base", "tuned (one)", "tuned (two)")
    ] == [1, 1, 1]


def test_a_run_without_scores_shows_what_is_there(runs, tmp_path: Path) -> None:
    shutil.copytree(runs[0] / "predictions", tmp_path / "cut/predictions")
    done = call(tmp_path / "cut", "--out", tmp_path / "site", "--title", "What is there")
    assert done.exit_code == 0, done.output
    text = (tmp_path / "site/report.md").read_text()
    assert text.startswith("# What is there")
    assert "Nothing was measured" in text


def test_runs_with_other_questions_of_a_task_are_refused(runs, tmp_path: Path) -> None:
    shutil.copytree(runs[1], tmp_path / "three")
    path = tmp_path / "three/questions/benchmark/questions.parquet"
    table = pq.read_table(path)
    stems = pa.array(["Elsewhere?", *table["stem"].to_pylist()[1:]])
    pq.write_table(table.set_column(table.column_names.index("stem"), "stem", stems), path)
    done = call(runs[0], tmp_path / "three", "--out", tmp_path / "site")
    assert isinstance(done.exception, InputError)
    assert str(done.exception).startswith(
        "runs one and three: have other questions of heart (en): question 'q0' differs; their numbers "
        "cannot stand side by side"
    )
    assert not (tmp_path / "site").exists()


def test_an_unknown_choice_of_texts_is_refused(runs, tmp_path: Path) -> None:
    done = call(runs[0], "--out", tmp_path / "site", "--texts", "some")
    assert "'some' is not one of open, all, none" in str(done.exception)
