from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from biomistral.recipe import settings

ARCHITECTURE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def _classes() -> list[type[settings.Settings]]:
    found = [getattr(settings, name) for name in settings.__all__]
    return [c for c in found if isinstance(c, type) and issubclass(c, settings.Settings)]


@pytest.mark.parametrize("cls", _classes(), ids=lambda cls: cls.__name__)
def test_every_field_says_what_it_means(cls: type[settings.Settings]) -> None:
    for name, field in cls.model_fields.items():
        assert field.description, f"{cls.__name__}.{name} has no description"


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
        settings.Architecture.model_validate({**ARCHITECTURE, **changes})


def test_a_model_is_fresh_if_it_has_an_architecture() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(settings.ModelSource)
    tokenizer = {"corpora": ["c"], "vocabulary_size": 300}
    fresh = adapter.validate_python({"architecture": ARCHITECTURE, "tokenizer": tokenizer})
    assert isinstance(fresh, settings.FreshModel)
    assert isinstance(adapter.validate_python({"path": "a"}), settings.StoredModel)
    assert adapter.validate_python(fresh) is fresh


def test_a_corpus_names_a_source_and_one_pattern_needs_no_list() -> None:
    assert settings.CorpusSettings.model_validate({"texts": "a.txt"}).texts == ["a.txt"]
    with pytest.raises(ValidationError, match="names no source"):
        settings.CorpusSettings.model_validate({"name": "c"})


def test_a_licence_against_commerce_never_enters_by_default() -> None:
    licences = settings.CorpusSettings.model_validate({"texts": "a.txt"}).licences
    assert not [licence for licence in licences if "NC" in licence]


def test_double_quantization_without_effect_is_refused() -> None:
    entry = {"name": "q", "model": "a", "method": "bitsandbytes", "bits": 8}
    with pytest.raises(ValidationError, match="no effect with bits: 8"):
        settings.BitsandbytesQuantization.model_validate({**entry, "double_quantization": True})


def test_one_scoring_needs_no_list_and_tasks_are_all_or_names() -> None:
    evaluate = settings.EvaluateSettings.model_validate({"models": ["a"], "scoring": "cloze"})
    assert evaluate.scoring == ["cloze"]
    assert evaluate.tasks == "all"
    chosen = settings.EvaluateSettings.model_validate({"models": ["a"], "tasks": ["t"]})
    assert chosen.tasks == ["t"]


def test_one_corpus_needs_no_list() -> None:
    recipe = settings.Recipe.model_validate({"name": "x", "corpus": {"texts": "a.txt"}})
    assert [corpus.name for corpus in recipe.corpus] == ["corpus"]


def test_a_recipe_comes_back_from_what_a_manifest_keeps(whole: str, parse) -> None:
    recipe = parse(whole)
    assert settings.Recipe.model_validate(recipe.model_dump(mode="json")) == recipe
