"""Training questions: which are read, which are refused, and how they are asked."""

from __future__ import annotations

import json

import pytest

from biomistral import artifacts
from biomistral.benchmark import (
    build_requests,
    find_training_files,
    load_training_questions,
    training_requests,
)
from biomistral.errors import InputError
from biomistral.recipe.settings import BenchmarkSettings, EvaluateSettings
from biomistral.records import Question, read_records

DESCRIPTION = "title: Herbs\ngroup: medical\nsource: invented\nlicence: CC0-1.0\n"


def _line(number, stem=None):
    return {
        "id": str(number),
        "stem": stem or f"Which herb cures fever {number}?",
        "choices": ["bark", "moss", "reed"],
        "gold": number % 3,
    }


@pytest.fixture
def own(tmp_path, write_own_task):
    """Two tasks; a training question of the first is a test question of the second."""
    splits = {"en/train.jsonl": [_line(n) for n in range(6)], "en/test.jsonl": [_line(9)]}
    write_own_task(tmp_path / "herbs", "name: herbs\n" + DESCRIPTION, splits)
    write_own_task(
        tmp_path / "fevers",
        "name: fevers\n" + DESCRIPTION,
        {"en/test.jsonl": [_line(3), _line(12)]},
    )
    return BenchmarkSettings(data=str(tmp_path))


def _kept(folder):
    return list(read_records(folder / "questions.parquet", Question))


def test_questions_of_any_task_s_test_are_refused_counted_and_listed(own, tmp_path):
    out = load_training_questions(own, ["herbs"], ["en"], tmp_path / "out")
    assert [question.id for question in _kept(out)] == ["0", "1", "2", "4", "5"]
    assert {question.split for question in _kept(out)} == {"train"}
    [refused] = map(json.loads, (out / "refused.jsonl").read_text().splitlines())
    assert refused == {
        "task": "herbs",
        "language": "en",
        "split": "train",
        "question_id": "3",
        "test_task": "fevers",
        "test_question_id": "3",
        "reason": "the same question",
    }
    counts = artifacts.read_manifest(out)["counts"]
    assert counts == {
        "questions": 5,
        "by_task": {"herbs": 5},
        "refused_for_overlap": 1,
        "refused_by_task": {"herbs": 1},
    }


def test_all_tasks_are_those_that_have_training_questions(own, tmp_path):
    out = load_training_questions(own, "all", ["en"], tmp_path / "out")
    assert {question.task for question in _kept(out)} == {"herbs"}


def test_a_named_task_without_training_questions_is_an_error(own, tmp_path):
    said = "task fevers: has no training questions in en .*tasks that have some: herbs"
    with pytest.raises(InputError, match=said):
        load_training_questions(own, ["fevers"], ["en"], tmp_path / "out")


def test_nothing_left_is_an_error(tmp_path, write_own_task):
    splits = {"en/train.jsonl": [_line(3)], "en/test.jsonl": [_line(3)]}
    write_own_task(tmp_path / "herbs", "name: herbs\n" + DESCRIPTION, splits)
    settings = BenchmarkSettings(data=str(tmp_path))
    with pytest.raises(InputError, match="none of the 1 training questions is left, 1 overlap"):
        load_training_questions(settings, "all", ["en"], tmp_path / "out")


def test_files_are_those_of_training_and_every_test(own):
    names = [name for name, _ in find_training_files(own, ["herbs"], ["en"])]
    assert names == ["fevers/en/test.jsonl", "herbs/en/test.jsonl", "herbs/en/train.jsonl"]


def test_published_training_files_are_read(data, tmp_path):
    settings = BenchmarkSettings(data=str(data))
    out = load_training_questions(settings, ["mmlu_anatomy"], ["en", "ar"], tmp_path / "out")
    assert {(q.language, q.split) for q in _kept(out)} == {("en", "train"), ("ar", "train")}
    assert len(_kept(out)) == 8  # of dev; val is not for training


@pytest.mark.parametrize(
    ("answer", "scoring", "template"),
    [
        ("letter", "letter", "biomistral"),
        ("letter", "letter", "meditron"),
        ("text", "cloze", "biomistral"),
    ],
)
def test_what_is_learned_is_what_evaluation_asks(make_question, answer, scoring, template):
    question = make_question(4, context="A passage.")
    settings = EvaluateSettings(
        models=["m"], shots=0, seeds=[1], scoring=[scoring], template=template
    )
    [asked] = build_requests([question], settings)
    [learned] = training_requests([question], template=template, answer=answer)
    assert (learned.prompt, learned.continuations) == (asked.prompt, asked.continuations)
    assert learned.gold == question.gold


@pytest.mark.slow
def test_real_training_questions_are_kept_apart_from_real_tests(real_data, tmp_path):
    settings = BenchmarkSettings(data=str(real_data))
    out = load_training_questions(settings, ["frenchmedmcqa"], ["fr"], tmp_path / "out")
    counts = artifacts.read_manifest(out)["counts"]
    assert counts["questions"] > 500
    refused = [json.loads(line) for line in (out / "refused.jsonl").read_text().splitlines()]
    assert counts["refused_for_overlap"] == len(refused)
    kept = {question.id for question in _kept(out)}
    assert not kept & {line["question_id"] for line in refused}
