from __future__ import annotations

import json

import pytest

from biomistral.errors import InputError
from biomistral.pipeline.translating import english_questions
from biomistral.recipe.settings import BenchmarkSettings
from biomistral.recipe.translating import TranslateSettings

TASK = "name: herbs\ntitle: Herbs\nsource: invented\nlicence: CC0\n"


@pytest.fixture
def data(tmp_path):
    for split, num in (("test", 10), ("train", 20)):
        rows = [
            {"id": f"{split}{i}", "stem": f"Which {i}?", "choices": ["a", "b"], "gold": 0}
            for i in range(num)
        ]
        file = tmp_path / "herbs" / "en" / f"{split}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "herbs" / "task.yaml").write_text(TASK)
    return tmp_path


def settings(**changes) -> TranslateSettings:
    return TranslateSettings.model_validate({"translator": {"path": "a/b"}, **changes})


def ids(data, **changes) -> list[str]:
    ((_, questions),) = english_questions(
        BenchmarkSettings(data=str(data)), settings(**changes)
    ).items()
    return [question.id for question in questions]


def test_all_test_questions_and_no_examples_by_default(data) -> None:
    assert ids(data) == [f"test{i}" for i in range(10)]


def test_limits_take_questions_evenly_spaced(data) -> None:
    tests, examples = (ids(data, limit=2, examples=2)[part] for part in (slice(2), slice(2, None)))
    assert tests == ["test2", "test7"]
    assert len(examples) == 2
    assert all(name.startswith("train") for name in examples)


def test_a_task_that_is_not_there_is_refused(data) -> None:
    with pytest.raises(InputError, match="did you mean"):
        ids(data, tasks=["herb"])
