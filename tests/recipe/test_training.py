from __future__ import annotations

import pytest
from pydantic import ValidationError

from biomistral.recipe.training import PretrainSettings


def test_the_published_learning_rate_and_schedule_are_the_defaults() -> None:
    settings = PretrainSettings(name="a", model="base")
    assert (settings.learning_rate, settings.schedule) == (2e-5, "cosine")


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"learning_rate": 1.0}, {"warmup_fraction": 1.5}])
def test_numbers_out_of_their_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        PretrainSettings.model_validate({"name": "a", "model": "base", **wrong})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 1, "tokens": 100}, "has both epochs and tokens; give one of them"),
        ({"mix": [{"corpus": "a", "share": 0.5}, {"corpus": "b", "share": 0.5}]}, "come to 1, and"),
        ({"warmup_start_fraction": 0.1}, "no effect without warmup_fraction"),
        (
            {"minimum_learning_rate_fraction": 0.1, "schedule": "constant"},
            "with schedule: constant",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    wrong: dict[str, object], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        PretrainSettings.model_validate({"name": "a", "model": "base", **wrong})


def test_further_corpora_are_those_mixed_in_and_those_measured() -> None:
    mix = [{"corpus": "general", "share": 0.1}]
    values = {"name": "a", "model": "base", "mix": mix, "held_out": ["news", "general"]}
    assert PretrainSettings.model_validate(values).further_corpora == ["general", "news"]
