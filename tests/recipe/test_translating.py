from __future__ import annotations

import pytest
from pydantic import ValidationError

from biomistral.recipe.endpoints import EndpointModel
from biomistral.recipe.translating import SequenceModel, TranslateSettings


def test_all_seven_languages_are_the_default() -> None:
    settings = TranslateSettings.model_validate({"translator": {"path": "a/b"}})
    assert settings.languages == ["fr", "es", "pt", "de", "ru", "zh", "ar"]
    assert isinstance(settings.translator, SequenceModel)


def test_an_endpoint_translates_too() -> None:
    served = {"endpoint": "https://somewhere/v1", "model": "m"}
    settings = TranslateSettings.model_validate({"translator": served})
    assert isinstance(settings.translator, EndpointModel)


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"languages": ["en"]}, "in en already"),
        ({"languages": []}, "at least 1 item"),
        ({"translator": {"path": "a-{language}", "revision": "abc"}}, "one for each language"),
        ({"attempts": 0}, "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes: dict[str, object], wrong: str) -> None:
    with pytest.raises(ValidationError, match=wrong):
        TranslateSettings.model_validate({"translator": {"path": "a/b"}, **changes})
