"""Every recipe that we ship loads and can be planned, here, without its data or a network."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from biomistral.pipeline import plan
from biomistral.recipe import load_recipe

FOLDER = Path(__file__).resolve().parent.parent / "recipes"
RECIPES = sorted(FOLDER.glob("*.yaml"))


def test_there_are_recipes() -> None:
    assert "miniature" in {path.stem for path in RECIPES}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_loads_and_plans(path: Path, tmp_path: Path) -> None:
    text = path.read_text("utf-8")
    variables = set(re.findall(r"\$\{([A-Z_]+)", text))
    environment = {name: str(tmp_path / name.lower()) for name in variables}
    recipe = load_recipe(path, environment=environment)
    assert recipe.name == path.stem, "its results are found under the name of its file"
    steps = plan(recipe, tmp_path / "run")
    assert {step.kind for step in steps} >= {"model", "questions", "predictions", "report"}
    assert any(step.missing for step in steps), "the data is not here, and that is told"
    assert not (tmp_path / "run").exists(), "planning writes nothing"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_says_what_it_is_and_needs(path: Path) -> None:
    first = path.read_text("utf-8").split("name:")[0]
    assert first.count("\n#") >= 2
