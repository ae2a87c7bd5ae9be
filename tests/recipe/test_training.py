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
