from __future__ import annotations

from pathlib import Path

import pytest

from biomistral.benchmark import build_requests
from biomistral.errors import InputError
from biomistral.recipe.settings import EvaluateSettings
from biomistral.records import Question, Task, write_records
from biomistral.serving.failures import Failure
from biomistral.serving.panel import open_panel

TASKS = [Task("herbs", "Herbs <b>", "medical", "", ""), Task("empty", "Empty", "medical", "", "")]


def questions() -> list[Question]:
    found = [
        Question(
            f"{n}", "herbs", code, "test", f"{code} stem {n}\n" + "long " * 40, ("a", "b", "c"), 1
        )
        for code in ("ar", "en")
        for n in range(3)
    ]
    examples = [
        Question(f"e{n}", "herbs", "en", "train", f"example {n}", ("x", "y", "z"), 0)
        for n in (1, 2)
    ]
    return found + examples


@pytest.fixture
def folder(tmp_path) -> Path:
    place = tmp_path / "run/questions/benchmark"
    place.mkdir(parents=True)
    write_records(place / "questions.parquet", questions(), Question)
    write_records(place / "tasks.parquet", TASKS, Task)
    return place


@pytest.mark.parametrize("up", [".", "../.."])
def test_questions_are_found_in_an_artefact_or_a_run(folder, up) -> None:
    listing = open_panel(folder / up).listing()
    assert [task["name"] for task in listing["tasks"]] == [
        "herbs"
    ]  # a task without questions is none
    assert [each["code"] for each in listing["tasks"][0]["languages"]] == ["en", "ar"]
    assert listing["tasks"][0]["most_shots"] == 2
    assert listing["languages"]["ar"] == {"name": "العربية", "direction": "rtl"}


@pytest.mark.parametrize("scoring", ["letter", "cloze"])
def test_the_prompt_is_that_of_an_evaluation(folder, scoring) -> None:
    shown = open_panel(folder).question("herbs", "en", 2, 2, scoring)
    settings = EvaluateSettings(models=["m"], shots=2, seeds=[1], scoring=[scoring])
    requests = build_requests(questions(), settings)
    (expected,) = [r for r in requests if (r.language, r.question_id) == ("en", "1")]
    assert shown["prompt"] == expected.prompt
    assert tuple(shown["options"]) == expected.continuations
    assert (shown["gold"], shown["shots"], shown["total"], shown["group"]) == (1, 2, 3, "medical")


def test_previews_are_short_and_of_one_line(folder) -> None:
    found = open_panel(folder).previews("herbs", "ar", 1, 5)
    assert found["total"] == 3
    assert [each["number"] for each in found["questions"]] == [2, 3]
    assert all(len(each["text"]) <= 90 and "\n" not in each["text"] for each in found["questions"])


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("herb", "en", 1, 0), 'did you mean "herbs"'),
        (("herbs", "fr", 1, 0), "it is in ar, en"),
        (("herbs", "en", 4, 0), "allowed are 1 to 3"),
        (("herbs", "en", 0, 0), "allowed are 1 to 3"),
        (("herbs", "en", 1, 3), "3 shots are asked for"),
    ],
)
def test_what_is_not_there_is_said(folder, asked, words) -> None:
    with pytest.raises(Failure, match=words) as refused:
        open_panel(folder).question(*asked, "letter")
    assert refused.value.status == 400


def test_a_folder_without_questions_is_refused(tmp_path, folder) -> None:
    with pytest.raises(InputError, match=r"has no questions\.parquet"):
        open_panel(tmp_path)
    write_records(folder / "questions.parquet", questions()[-2:], Question)
    with pytest.raises(InputError, match="no question of the split test"):
        open_panel(folder)


def test_over_http(start_server, opened, folder) -> None:
    with start_server(opened, panel=open_panel(folder)) as client:
        listing = client.get("/panel/tasks")[1]
        assert (listing["scoring"], listing["shots"]) == ("letter", 0)
        assert client.get("/panel/questions?task=herbs&language=en&count=2")[1]["total"] == 3
        found = client.get("/panel/question?task=herbs&language=ar&number=1&shots=1")[1]
        assert found["direction"] == "rtl"
        status, answer = client.get("/panel/question?task=herbs&language=ar&number=x")
        assert (status, answer["error"]["param"]) == (400, "number")


def test_without_questions_there_is_no_panel(client) -> None:
    assert client.get("/panel/tasks")[0] == 404
