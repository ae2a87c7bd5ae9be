from __future__ import annotations

import pytest

from biomistral.errors import (
    BiomistralError,
    InputError,
    MissingDependencyError,
    ModelError,
    RecipeError,
    did_you_mean,
    require,
)


@pytest.mark.parametrize("kind", [InputError, ModelError, RecipeError, MissingDependencyError])
def test_every_error_a_user_can_mend_is_caught_as_one(kind: type[Exception]) -> None:
    assert issubclass(kind, BiomistralError)


def test_one_problem_of_a_recipe_is_one_line() -> None:
    error = RecipeError("r.yaml", ["seed: is missing"])
    assert str(error) == "r.yaml: seed: is missing"
    assert error.problems == ("seed: is missing",)


def test_many_problems_of_a_recipe_are_counted_and_all_listed() -> None:
    error = RecipeError("r.yaml", ["a: is wrong", "b: is wrong"])
    assert str(error) == "r.yaml: 2 problems:\n  - a: is wrong\n  - b: is wrong"


def test_a_library_that_is_there_is_no_error() -> None:
    require("json", extra="none", purpose="nothing")


def test_a_missing_library_names_purpose_and_the_line_that_brings_it() -> None:
    with pytest.raises(MissingDependencyError) as caught:
        require("no_such_library", extra="quantization", purpose="4-bit quantization")
    message = str(caught.value)
    assert message.startswith("4-bit quantization needs the library 'no_such_library'")
    assert "pip install 'biomistral[quantization]'" in message


@pytest.mark.parametrize(
    ("word", "hint"),
    [("slurp", '; did you mean "slerp"?'), ("xyz", ""), ("", "")],
)
def test_only_a_close_word_is_suggested(word: str, hint: str) -> None:
    assert did_you_mean(word, ["slerp", "linear"]) == hint
