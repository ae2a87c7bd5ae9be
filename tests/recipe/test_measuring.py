"""Settings of benchmark and evaluation that do not go together."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from biomistral.recipe.settings import BenchmarkSettings, EvaluateSettings

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"permutations": 3, "seeds": [1, 2]}, "permutations 3 needs as many seeds.*there are 2"),
        ({"template": "meditron", "prompt_language": "question"}, "has no effect with template"),
        ({"examples": "stored", "example_language": "english"}, "no effect with examples: stored"),
        ({"template": "mediatron"}, "'biomistral', 'meditron' or 'chat'"),
        ({"permutations": 0}, "greater than or equal to 1"),
    ],
)
def test_what_does_not_go_together_is_said(changes, message):
    with pytest.raises(ValidationError, match=message):
        EvaluateSettings(models=["m"], **changes)


def test_the_defaults_are_the_published_protocol():
    settings = EvaluateSettings(models=["m"])
    assert (settings.template, settings.prompt_language) == ("biomistral", "english")
    assert (settings.examples, settings.shots, settings.seeds) == ("per_task", 3, [1, 2, 3])
    assert settings.permutations == 1


@pytest.mark.parametrize("revision", ["main", "0123", COMMIT.upper(), ""])
def test_a_data_set_of_the_hub_is_named_with_its_commit(revision):
    with pytest.raises(ValidationError, match="revision"):
        BenchmarkSettings(hub=[{"id": "cais/mmlu", "revision": revision}])
    assert BenchmarkSettings(hub=[{"id": "cais/mmlu", "revision": COMMIT}]).hub
