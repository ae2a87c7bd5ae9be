from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from biomistral.recipe import Recipe, merging, parse_recipe, settings
from biomistral.recipe.explain import SECTIONS, explain, reference, schema
from biomistral.recipe.yaml_text import read_yaml

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


def _accepts(rule: dict[str, Any], value: Any, document: dict[str, Any]) -> bool:
    """Whether a value is of a JSON schema, as far as ours go: a second, slow reading of it."""
    if "$ref" in rule:
        rule = document["$defs"][rule["$ref"].split("/")[-1]]
    if options := rule.get("anyOf") or rule.get("oneOf"):
        return any(_accepts(option, value, document) for option in options)
    if "const" in rule and value != rule["const"]:
        return False
    if "enum" in rule and value not in rule["enum"]:
        return False
    kinds = {"string": str, "integer": int, "boolean": bool, "array": list, "object": dict}
    kinds["number"], kinds["null"] = (int, float), type(None)  # type: ignore[assignment]
    if "type" in rule and not isinstance(value, kinds[rule["type"]]):
        return False
    if isinstance(value, list):
        enough = rule.get("minItems", 0) <= len(value) <= rule.get("maxItems", len(value))
        return enough and all(_accepts(rule.get("items", {}), item, document) for item in value)
    if isinstance(value, dict):
        known = rule.get("properties", {})
        others = rule.get("additionalProperties", True)
        return set(rule.get("required", ())) <= value.keys() and all(
            _accepts(known.get(key, others), item, document) if known.get(key, others) else False
            for key, item in value.items()
            if known.get(key, others) is not True
        )
    return True


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(schema())
    return loaded


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        found = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return found + [r for item in value.values() for r in _references(item)]
    return [r for item in value for r in _references(item)] if isinstance(value, list) else []


def test_the_schema_is_whole(document: dict[str, Any]) -> None:
    assert document["$schema"].endswith("2020-12/schema")
    assert document["properties"].keys() == Recipe.model_fields.keys()
    for reference_ in _references(document):
        assert reference_.removeprefix("#/$defs/") in document["$defs"]


def test_every_object_of_the_schema_refuses_unknown_keys(document: dict[str, Any]) -> None:
    for name, definition in document["$defs"].items():
        assert definition["additionalProperties"] is False, name


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_schema_accepts_the_recipes_that_we_ship(path: Path, document: dict[str, Any]) -> None:
    assert _accepts(document, read_yaml(path.read_text("utf-8"), path.name), document)


def test_the_schema_accepts_one_of_everything(whole: str, document: dict[str, Any]) -> None:
    assert _accepts(document, read_yaml(whole, "whole"), document)


@pytest.mark.parametrize(
    "change", ["nme: x", "seed: -1.5", "corpus: {texts: 3}", "evaluate: {models: []}"]
)
def test_the_schema_refuses_mistakes(change: str, document: dict[str, Any]) -> None:
    assert not _accepts(document, {"name": "x", **yaml.safe_load(change)}, document)


def test_an_explained_recipe_is_the_same_recipe_with_nothing_left_open(whole: str) -> None:
    recipe = parse_recipe(whole)
    explained = explain(recipe)
    again = parse_recipe(explained)
    assert again == recipe
    assert explain(again).replace("#*", "# ") == explained.replace("#*", "# ")


def test_a_star_marks_what_the_recipe_sets(whole: str) -> None:
    lines = explain(parse_recipe(whole)).splitlines()
    assert [line for line in lines if line.startswith("seed: 7  #*")]
    assert [line for line in lines if "epochs: 1.5  #*" in line]
    assert [line for line in lines if 'schedule: "cosine"  #  Course' in line]


def test_awkward_values_are_explained_as_yaml_that_reads_the_same() -> None:
    recipe = parse_recipe(
        "name: x\nmodels: {'1': {path: \"it's: #1 – é\"}, no: {path: 'no'}}\n"
        "merge:\n"
        "  - {name: m, method: slerp, base: 'no', models: [{model: '1'}], "
        "t: [{filter: mlp, value: [0, 1]}, {value: 0.5}]}\n"
    )
    assert parse_recipe(explain(recipe)) == recipe


def test_the_reference_has_every_field_of_every_entry() -> None:
    page = reference()
    classes = [cls for _, group in SECTIONS for cls in group]
    public = [*vars(settings).values(), *vars(merging).values()]
    expected = [c for c in public if isinstance(c, type) and issubclass(c, settings.Settings)]
    expected = [c for c in expected if c is not settings.Settings and c.__name__[0] != "_"]
    assert set(classes) == set(expected), "a class of settings is missing from the page"
    for cls in classes:
        section = page.split(f"### {cls.__name__}\n")[1].split("\n### ")[0]
        for name in cls.model_fields:
            assert f"| `{name}` |" in section


def test_the_reference_speaks_of_yaml_and_not_of_python() -> None:
    page = reference()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert not [row for row in rows if "Annotated" in row or "typing" in row or "NoneType" in row]
    assert "| `t` | parameter | **required** |" in page
    assert "| `models` | mapping of name to StoredModel or FreshModel or EndpointModel |" in page
    assert "`all` or list of text" in page
    assert all(row.count(" | ") == 3 for row in rows), "a bar in a text would break its table"
