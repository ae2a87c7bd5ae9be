from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from biomistral.languages import LANGUAGES
from biomistral.recipe.fields import Distinct, Fraction, LanguageCode, Name, Settings


class Box(Settings):
    """Something with a width."""

    width: float = 1.0


def test_settings_refuse_unknown_keys_infinities_and_change() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        Box.model_validate({"widht": 2})
    with pytest.raises(ValidationError, match="finite"):
        Box(width=float("inf"))
    with pytest.raises(ValidationError, match="frozen"):
        Box().width = 2


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (Fraction, [0, 0.5, 1], [-0.1, 1.1]),
        (LanguageCode, list(LANGUAGES), ["EN", "eng", ""]),
        (Name, ["a", "7b", "a.b-c_d"], ["", ".a", "-a", "a/b", "a b", "é", "a" * 101]),
        (Distinct[int], [[], [1], [1, 2]], [[1, 1], [1, 2, 1]]),
    ],
)
def test_each_type_takes_what_it_should_and_nothing_else(
    kind: Any, good: list[Any], bad: list[Any]
) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    for value in good:
        assert adapter.validate_python(value) == value
    for value in bad:
        with pytest.raises(ValidationError):
            adapter.validate_python(value)
