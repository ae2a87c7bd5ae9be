"""What a model is given, shown to a person."""

from __future__ import annotations

import pytest

from biomistral.benchmark import build_requests, show_question
from biomistral.benchmark.questions import load_questions
from biomistral.errors import InputError
from biomistral.recipe.settings import BenchmarkSettings, EvaluateSettings
from biomistral.records import Question, read_records


def settings(**changes):
    values = {"models": ["m"], "tasks": ["mmlu_anatomy"], "languages": ["ar"], "seeds": [1]}
    return EvaluateSettings(**{**values, **changes})


def test_the_prompt_is_that_of_the_evaluation(data, tmp_path):
    benchmark = BenchmarkSettings(data=str(data))
    load_questions(benchmark, ["mmlu_anatomy"], ["ar"], tmp_path / "q", shots_needed=3)
    questions = list(read_records(tmp_path / "q/questions.parquet", Question))
    request = build_requests(questions, settings())[2]
    text = show_question(benchmark, settings(), number=3)
    assert f"\n{request.prompt}|\n" in text
    assert text.startswith("question '3', number 3 of 8 of mmlu_anatomy (ar)\n")
    assert "--- seed 1, 3 shots, letter scoring\n" in text
    assert "  D. 'D': reed 3 <- right\n" in text
    assert text.count("<- right") == 1
    assert show_question(benchmark, settings(), question_id="3") == text


def test_every_seed_scoring_and_order_is_shown(data):
    text = show_question(
        BenchmarkSettings(data=str(data)),
        settings(seeds=[1, 2], scoring=["letter", "cloze"], permutations=2),
    )
    assert text.count("--- seed") == 4
    assert "seed 2, 3 shots, letter scoring, choices in the order 1, 2, 3, 0" in text


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({}, {"number": 9}, "there is no question 9; numbers go from 1 to 8"),
        ({}, {"number": 0}, "there is no question 0"),
        ({}, {"question_id": "x"}, "no evaluated question has the id 'x'; ids are like 1, 2, 3"),
        ({"tasks": "all"}, {}, "name one task and one language"),
        ({"languages": ["ar", "en"]}, {}, "name one task and one language"),
    ],
)
def test_what_is_not_there_is_said(data, changes, arguments, message):
    with pytest.raises(InputError, match=message):
        show_question(BenchmarkSettings(data=str(data)), settings(**changes), **arguments)
