from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from biomistral.recipe import models

ARCHITECTURE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"hidden_size": 66}, "66 is not a multiple of num_attention_heads 4"),
        ({"num_key_value_heads": 3}, "4 is not a multiple of num_key_value_heads 3"),
        ({"num_hidden_layers": 0}, "greater than or equal to 1"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(changes: dict[str, int], wrong: str) -> None:
    with pytest.raises(ValidationError, match=wrong):
        models.Architecture.model_validate({**ARCHITECTURE, **changes})


def test_a_model_is_fresh_if_it_has_an_architecture() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(models.ModelSource)
    tokenizer = {"corpora": ["c"], "vocabulary_size": 300}
    fresh = adapter.validate_python({"architecture": ARCHITECTURE, "tokenizer": tokenizer})
    assert isinstance(fresh, models.FreshModel)
    assert isinstance(adapter.validate_python({"path": "a"}), models.StoredModel)
    assert adapter.validate_python(fresh) is fresh
