from __future__ import annotations

import pytest

from biomistral.recipe import settings


def _classes() -> list[type[settings.Settings]]:
    found = [getattr(settings, name) for name in settings.__all__]
    return [c for c in found if isinstance(c, type) and issubclass(c, settings.Settings)]


@pytest.mark.parametrize("cls", _classes(), ids=lambda cls: cls.__name__)
def test_every_field_says_what_it_means(cls: type[settings.Settings]) -> None:
    for name, field in cls.model_fields.items():
        assert field.description, f"{cls.__name__}.{name} has no description"


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
