from __future__ import annotations

import json
import random
from pathlib import Path

import lxml.html
import pytest

from biomistral.advisory import ADVISORY
from biomistral.errors import InputError
from biomistral.evaluation import score
from biomistral.records import Prediction, Question, Score, Task, read_records, write_records
from biomistral.reporting.browser_files import read_board, write_browser

TASKS = [
    Task("heart", "Heart", "medical", "invented", "MIT"),
    Task("secret", "Secret", "general", "invented", "all rights reserved"),
]
MODELS = ("base", "<b>tuned</b>")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> dict:
    """Thirty questions of two and four choices in two languages, answered by chance."""
    root = tmp_path_factory.mktemp("run")
    drawn = random.Random(5)
    questions = [
        Question(
            f"q{number}", task.name, language, split,
            "أين القلب؟" if language == "ar" else f"Where <i>is</i> Café {number}?",
            ("left", "right", "up", "down")[: 2 if task.name == "secret" else 4],
            number % 2, "A passage." if number == 0 else "",
        )
        for language in ("ar", "en")
        for task in TASKS
        for split, numbers in (("train", range(3)), ("test", range(30)))
        for number in numbers
    ]  # fmt: skip
    (root / "questions").mkdir()
    write_records(root / "questions/questions.parquet", questions, Question)
    write_records(root / "questions/tasks.parquet", TASKS, Task)
    predictions = {}
    for model in MODELS:
        found = [
            Prediction(q.id, q.task, q.language, model, shots, seed, scoring,
                       tuple(-drawn.expovariate(0.5) for _ in q.choices), q.gold)
            for scoring, shots in (("cloze", 0), ("letter", 3))
            for seed in (1, 2, 3)
            for q in questions
            if q.split == "test"
        ]  # fmt: skip
        predictions[model] = root / f"predictions-{len(predictions)}"
        predictions[model].mkdir()
        write_records(predictions[model] / "predictions.parquet", found, Prediction)
    return {
        "questions": [root / "questions"],
        "predictions": predictions,
        "tasks": TASKS,
        "languages": ["en", "ar"],
    }


@pytest.fixture(scope="module")
def site(run, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    assert write_browser(folder, title="A run of <numbers>", **run) == 120
    return folder


def test_accuracies_of_the_browser_are_those_of_the_scores(run, tmp_path: Path) -> None:
    board = read_board(**run)
    made = score(run["predictions"], run["questions"][0], tmp_path / "scores", seed=1, ensembles=[])
    found = [
        s
        for s in read_records(made / "scores.parquet", Score)
        if s.metric == "accuracy" and s.task != "average" and s.model in MODELS
    ]
    assert len(found) == 2 * 2 * 2 * 2
    for each in found:
        answers = board.tracks[each.model, each.scoring, each.shots]
        own = [
            row
            for row in range(len(board.ids))
            if TASKS[board.task_index[row]].name == each.task
            and board.languages[board.language_index[row]] == each.language
        ]
        shares = [answers.num_right[row] / answers.num_asked[row] for row in own]
        assert sum(shares) / len(shares) == pytest.approx(each.value)


def test_questions_are_in_the_order_of_languages_tasks_and_the_file(run) -> None:
    board = read_board(**run)
    places = list(zip(board.language_index, board.task_index, strict=True))
    assert places == sorted(places)
    assert list(board.ids[:30]) == [f"q{number}" for number in range(30)]
    assert [track[1:] for track in board.tracks] == [("letter", 3), ("cloze", 0)] * 2


def test_only_texts_under_an_open_licence_are_written(site: Path) -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in (site / "questions").glob("*.js"))
    rows = json.loads(text.split("biomistral.part(0,")[1].split(");\n")[0])
    shown = {TASKS[0].name: 0, TASKS[1].name: 0}
    for place, row in enumerate(rows):
        shown[TASKS[place // 30 % 2].name] += "stem" in row
    assert shown == {"heart": 60, "secret": 0}


def test_without_a_question_nothing_is_written(run, tmp_path: Path) -> None:
    assert write_browser(tmp_path, title="", **{**run, "predictions": {}}) == 0
    assert not list(tmp_path.iterdir())


def test_a_model_that_was_not_asked_everything_is_absent_there(run, tmp_path: Path) -> None:
    (tmp_path / "predictions").mkdir()
    one = Prediction("q1", "heart", "en", "late", 3, 1, "letter", (-1.0, -2.0, -3.0, -4.0), 1)
    write_records(tmp_path / "predictions/predictions.parquet", [one], Prediction)
    predictions = {**run["predictions"], "late": tmp_path / "predictions"}
    answers = read_board(**{**run, "predictions": predictions}).tracks["late", "letter", 3]
    assert answers.num_asked.sum() == 1
    assert (answers.choice != 255).sum() == 1


def test_predictions_that_cannot_be_read_are_named(run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"predictions\.parquet: cannot be read"):
        read_board(**{**run, "predictions": {"m": tmp_path}})


def test_the_page_has_the_advisory_and_asks_for_nothing_but_its_data(site: Path) -> None:
    page = lxml.html.fromstring((site / "questions.html").read_text(encoding="utf-8"))
    assert page.xpath("string(//aside)").strip() == ADVISORY
    assert page.xpath("//@src") == ["questions/index.js"]
    assert not page.xpath("//link")
    assert page.xpath("string(//title)") == "Questions: A run of <numbers>"


def test_the_browser_filters_searches_and_pages(site: Path, browser) -> None:
    said = "document.getElementById('summary').textContent"
    cards = "document.querySelectorAll('#questions article')"
    address = (
        f"{(site / 'questions.html').as_uri()}#task=heart&language=ar&setting=cloze scoring, 0-shot"
    )
    browser.open(address)
    browser.wait("document.documentElement.dataset.ready")
    assert browser.complaints == []
    assert browser.run(said).startswith("30 questions; base ")
    assert browser.run(f"{cards}.length") == 20
    assert browser.run(f"{cards}[0].querySelector('[dir=rtl]').lang") == "ar"
    browser.run("document.querySelector('[data-step=\"1\"]').click()")
    browser.wait(f"{cards}.length === 10")
    # A group of tasks, as links from averages name it.
    browser.open(f"{(site / 'questions.html').as_uri()}#task=group:general&language=en")
    browser.wait("document.documentElement.dataset.ready")
    assert browser.run(said).startswith("30 questions; ")
    assert "Secret" in browser.run("document.querySelector('#aggregates tbody').textContent")
    assert "Heart" not in browser.run("document.querySelector('#aggregates tbody').textContent")
    # Another address in the same tab is read whole, its page too.
    browser.run("location.hash = '#task=heart&language=en&page=2'")
    browser.wait(f"{cards}.length === 10 && {cards}[0].querySelector('[lang=en]')")
    browser.run("new Promise((resolve) => setTimeout(resolve, 100))")
    assert browser.run(f"{cards}.length") == 10
    assert "page=2" in browser.run("location.hash")
    # Texts that are not to be shown are said to be missing; words find accents and parts of ids.
    browser.open(f"{(site / 'questions.html').as_uri()}#words=cafe 29&language=en")
    browser.wait(f"{said}.startsWith('1 question;')")
    assert "Where <i>is</i> Café 29?" in browser.run(f"{cards}[0].textContent")
    # Right answers of one and wrong ones of the other make up, with their converse, all that differ.
    counts = []
    for pair in ("first", "second", "neither", ""):
        browser.open(
            f"{(site / 'questions.html').as_uri()}#model=base&other=<b>tuned</b>&pair={pair}"
        )
        browser.wait("document.documentElement.dataset.ready")
        counts.append(int(browser.run(said).split()[0]))
    assert counts[3] == 120
    assert 0 < sum(counts[:3]) < 120
    browser.open(f"{(site / 'questions.html').as_uri()}#task=secret&order=hard")
    browser.wait("document.documentElement.dataset.ready")
    assert "its licence (all rights reserved)" in browser.run(f"{cards}[0].textContent")
    assert browser.complaints == []
