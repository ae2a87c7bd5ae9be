from __future__ import annotations

from collections.abc import Callable

import pytest

from biomistral.errors import RecipeError
from biomistral.recipe import Recipe, parse_recipe

# Of the shape of the design page: one of everything that a published run has.
WHOLE = """
name: river-7b
seed: 7
models:
  base: {path: somebody/River-7B, revision: 0123abc}
corpus:
  articles: data/archive/**/*.xml
  licences: [CC0, CC-BY]
  sequence_length: 2048
pretrain:
  - {name: medical, model: base, epochs: 1.5, learning_rate: 2e-5}
merge:
  - {name: medical-slerp, method: slerp, base: base, models: [{model: medical}], t: 0.5}
  - name: medical-dare
    method: dare_ties
    base: base
    models: [{model: medical, density: 0.5, weight: 0.5}]
quantize:
  - {name: medical-awq, model: medical, method: awq, bits: 4, group_size: 128}
evaluate:
  models: [base, medical, medical-slerp, medical-dare, medical-awq]
  tasks: all
  languages: [en, fr, es, pt, de, ru, zh, ar]
  shots: 3
  seeds: [1, 2, 3]
  ensembles: [{name: both, models: [base, medical]}]
"""


@pytest.fixture
def whole() -> str:
    """Text of a recipe with one of everything."""
    return WHOLE


@pytest.fixture
def parse() -> Callable[..., Recipe]:
    """Return a function that parses a recipe; it knows no environment variables."""

    def parse(text: str, *changes: str, **environment: str) -> Recipe:
        return parse_recipe(text, changes=changes, environment=environment)

    return parse


@pytest.fixture
def problems(parse: Callable[..., Recipe]) -> Callable[..., list[str]]:
    """Return a function that gives what is wrong with a recipe, in order; nothing is allowed too."""

    def problems(text: str, *changes: str, **environment: str) -> list[str]:
        try:
            parse(text, *changes, **environment)
        except RecipeError as error:
            return list(error.problems)
        return []

    return problems
