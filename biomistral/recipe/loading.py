"""Read a recipe: YAML with 1.2 rules, environment variables, ``--set``, and every problem at once.

Knows what may be written (``settings``) and how names hang together (``links``); reads no other
file and starts no work.
"""

from __future__ import annotations

import os
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic

from biomistral.errors import InputError, RecipeError, did_you_mean
from biomistral.recipe.links import link_problems
from biomistral.recipe.settings import Recipe
from biomistral.recipe.yaml_text import read_yaml

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


def load_recipe(
    path: Path, *, changes: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Recipe:
    """Read, change and check a recipe.

    ``changes`` are ``path=value`` as given to ``--set``: the path walks keys, list indices and names
    of entries (``pretrain.biomistral.learning_rate=1e-5``); the value is YAML. ``${NAME}`` in a text
    is replaced from ``environment`` (default: the process's), ``${NAME:-default}`` with a default.

    Raises ``InputError`` if the file cannot be read, and ``RecipeError`` with every problem found.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such recipe; see the folder recipes/") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read as a recipe ({error}); name a YAML file, saved as UTF-8"
        ) from None
    return parse_recipe(text, source=str(path), changes=changes, environment=environment)


def parse_recipe(
    text: str,
    *,
    source: str = "recipe",
    changes: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Recipe:
    """Do what ``load_recipe`` does, on a recipe given as text."""
    value: Any = read_yaml(text, source)
    if not isinstance(value, dict):
        raise RecipeError(source, ["is not a mapping of sections; start with `name: ...`"])
    problems: list[str] = []
    for change in changes:
        problems += _apply_change(value, change)
    value = _substitute(value, os.environ if environment is None else environment, "", problems)
    if problems:
        raise RecipeError(source, problems)
    try:
        recipe = Recipe.model_validate(value)
    except pydantic.ValidationError as error:
        raise RecipeError(source, _sentences(error.errors(), value)) from None
    if problems := link_problems(recipe):
        raise RecipeError(source, problems)
    return recipe


def _apply_change(recipe: dict[str, Any], change: str) -> list[str]:
    """Set one ``path=value`` in place; return what is wrong with it, if anything."""
    path, equals, text = change.partition("=")
    if not equals or not path:
        return [f"--set {change!r}: is not of the form path=value"]
    *parents, last = path.split(".")
    node: Any = recipe
    for depth, step in enumerate(parents):
        node = _child(node, step)
        if node is None:
            return [f"--set {path}: the recipe has no {'.'.join(parents[: depth + 1])}"]
    try:
        value = read_yaml(text, path)
    except RecipeError:
        return [f"--set {path}: {text!r} is not a YAML value"]
    if isinstance(node, dict):
        node[last] = value
    elif isinstance(node, list) and (index := _index(node, last)) is not None:
        node[index] = value
    else:
        return [f"--set {path}: there is nothing called {last!r} to set"]
    return []


def _child(node: Any, step: str) -> Any:
    if isinstance(node, dict):
        return node.get(step)
    if isinstance(node, list) and (index := _index(node, step)) is not None:
        return node[index]
    return None


def _index(items: list[Any], step: str) -> int | None:
    if step.isdecimal():
        return int(step) if int(step) < len(items) else None
    names = [item.get("name") if isinstance(item, dict) else None for item in items]
    return names.index(step) if step in names else None


def _substitute(value: Any, environment: Mapping[str, str], where: str, problems: list[str]) -> Any:
    """Replace ``${NAME}`` in all texts below ``value``; note variables that are not set."""
    if isinstance(value, dict):
        return {
            key: _substitute(item, environment, f"{where}.{key}".strip("."), problems)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [
            _substitute(item, environment, f"{where}[{index}]", problems)
            for index, item in enumerate(value)
        ]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        name, default = match.group(1), match.group(2)
        found: str | None = environment.get(name, default)
        if found is None:
            problems.append(
                f"{where}: the environment variable {name} is not set; set it, or give the value "
                f"with --set {where}=..."
            )
            return ""
        return found

    return _VARIABLE.sub(replace, value)


# --- from pydantic's errors to sentences ----------------------------------------------------------


def _sentences(errors: Sequence[Any], recipe: Any) -> list[str]:
    """Say pydantic's errors as sentences, one for each place and unknown key."""
    said: dict[str, list[str]] = {}
    for error in errors:
        wrong = said.setdefault(_path(error, recipe), [])
        what = _what_is_wrong(error, recipe)
        if what not in wrong:  # the arms of a union complain about one place each
            wrong.append(what)
    return [f"{where or 'recipe'}: {' and '.join(wrong)}" for where, wrong in said.items()]


# Kinds of pydantic's errors that speak of Python where the reader wrote YAML.
_SHAPES = {
    "model_type": "is not a mapping of keys to values",
    "model_attributes_type": "is not a mapping of keys to values",
    "dict_type": "is not a mapping of names to entries",
    "list_type": "is not a list",
    "invalid_key": "is no text; put the key in quotes",
}


def _what_is_wrong(error: Any, recipe: Any) -> str:
    kind, context, given = error["type"], error.get("ctx", {}), error["input"]
    if kind == "extra_forbidden":
        allowed = sorted(_keys_beside(error, recipe))
        hint = did_you_mean(str(error["loc"][-1]), allowed)
        return f"unknown key{hint or '; allowed are ' + ', '.join(allowed)}"
    if kind == "missing":
        return "is missing"
    if kind == "union_tag_invalid":
        allowed = [tag.strip().strip("'") for tag in context["expected_tags"].split(",")]
        hint = did_you_mean(str(context["tag"]), allowed)
        return f"method {context['tag']!r} is not one of {', '.join(allowed)}{hint}"
    if kind == "union_tag_not_found":
        tags = [tag for model in _models_at(error, recipe) for tag in _methods(model)]
        return f"has no method; it is one of {', '.join(tags)}"
    if kind == "literal_error":
        return f"{given!r} is not {context['expected']}"
    if kind == "string_pattern_mismatch":
        return f"{given!r} is no name; letters, digits, dot, hyphen and underscore are allowed"
    if given is None:
        return "is empty; give it a value, or leave it out"
    if kind in _SHAPES:
        return _SHAPES[kind]
    if kind in {"too_short", "too_long"}:
        bound = "at least" if kind == "too_short" else "at most"
        limit = context.get("min_length", context.get("max_length"))
        return f"has {context['actual_length']} entries; {bound} {limit} are allowed"
    message = error["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    given_is_shown = kind == "value_error" or isinstance(given, dict | list)
    return message if given_is_shown else f"{message}, not {given!r}"


def _walk(error: Any, recipe: Any) -> Iterator[tuple[int | str, Any]]:
    """Yield the steps of an error's location that exist in the YAML, each with what it leads to.

    Pydantic's locations also name union arms and list positions that its validators made up.
    """
    location, node = error["loc"], recipe
    for step in location:
        in_mapping = isinstance(node, dict) and step in node
        in_list = isinstance(node, list) and isinstance(step, int) and step < len(node)
        if in_mapping or in_list:
            node = node[step]
        elif error["type"] != "missing" or step != location[-1]:
            continue
        yield step, node


def _path(error: Any, recipe: Any) -> str:
    steps = [
        f"[{step}]" if isinstance(step, int) else f".{step}" for step, _ in _walk(error, recipe)
    ]
    return "".join(steps).removeprefix(".")


def _keys_beside(error: Any, recipe: Any) -> set[str]:
    """Keys that may stand where an unknown one was found."""
    *steps, (_, _) = _walk(error, recipe)
    models, node = _follow(steps, recipe)
    fitting = [model for model in models if _fits(model, node)]
    return {key for model in fitting or models for key in model.model_fields}


def _models_at(error: Any, recipe: Any) -> list[type[pydantic.BaseModel]]:
    """Settings classes of which one is wanted where an error is."""
    return _follow(list(_walk(error, recipe)), recipe)[0]


def _follow(
    steps: Sequence[tuple[int | str, Any]], recipe: Any
) -> tuple[list[type[pydantic.BaseModel]], Any]:
    """Where steps into a recipe lead: the settings classes that may stand there, and what does."""
    models: list[type[pydantic.BaseModel]] = [Recipe]
    node = recipe
    for step, child in steps:
        owners = [m for m in models if step in m.model_fields and _fits(m, node)]
        if owners:
            models = _models_in([m.model_fields[str(step)].annotation for m in owners])
        node = child
    return models, node


def _methods(model: type[pydantic.BaseModel]) -> tuple[str, ...]:
    """Values of ``method`` that choose a class among its kind."""
    return typing.get_args(model.model_fields["method"].annotation)


def _models_in(annotations: Sequence[Any]) -> list[type[pydantic.BaseModel]]:
    """All settings classes inside unions, lists and mappings."""
    found: list[type[pydantic.BaseModel]] = []
    for annotation in annotations:
        if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
            found.append(annotation)
        else:
            found += _models_in(typing.get_args(annotation))
    return found


def _fits(model: type[pydantic.BaseModel], node: dict[str, Any]) -> bool:
    """Whether a class is the arm of its union that an entry chose."""
    if "method" in model.model_fields:
        return node.get("method") in _methods(model)
    if "path" in model.model_fields or "architecture" in model.model_fields:
        return ("architecture" in node) == ("architecture" in model.model_fields)
    return True
