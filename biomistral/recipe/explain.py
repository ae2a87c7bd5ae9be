"""Say what a recipe means: resolved with every default, as a reference page, or as a JSON schema.

All text comes from the descriptions in ``settings``. Knows nothing about files or steps.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Iterator
from typing import Any

import pydantic
from pydantic.fields import FieldInfo

from biomistral.recipe import merging, settings
from biomistral.recipe.settings import Recipe, Settings

# Sections of the reference page: heading, key in the recipe, classes of its entries.
SECTIONS: tuple[tuple[str, tuple[type[Settings], ...]], ...] = (
    ("The recipe", (Recipe,)),
    (
        "models",
        (
            settings.StoredModel,
            settings.FreshModel,
            settings.Architecture,
            settings.TokenizerTraining,
            settings.EndpointModel,
        ),
    ),
    ("corpus", (settings.CorpusSettings, settings.LanguageMix)),
    ("pretrain", (settings.PretrainSettings, settings.MixedCorpus)),
    ("sft", (settings.SftSettings,)),
    ("dpo", (settings.DpoSettings,)),
    (
        "merge",
        (
            *typing.get_args(typing.get_args(merging.MergeSettings)[0]),
            merging.MergeInput,
            merging.WeightedInput,
            merging.SparseInput,
            merging.CrumbsInput,
            merging.RankedInput,
            merging.LayersInput,
            merging.FilteredValue,
        ),
    ),
    (
        "quantize",
        (
            settings.AwqQuantization,
            settings.BitsandbytesQuantization,
            settings.GgufQuantization,
            settings.HalfPrecision,
        ),
    ),
    ("benchmark", (settings.BenchmarkSettings, settings.HubDataset)),
    ("evaluate", (settings.EvaluateSettings, settings.EnsembleSettings)),
)
# Lists of which a single entry may be written without brackets.
_ONE_NEEDS_NO_LIST: tuple[tuple[type[Settings], str], ...] = (
    (Recipe, "corpus"),
    (settings.CorpusSettings, "articles"),
    (settings.CorpusSettings, "texts"),
    (settings.EvaluateSettings, "scoring"),
    (settings.SftSettings, "data"),
    (settings.DpoSettings, "pairs"),
)


def schema() -> str:
    """JSON schema of recipes, for editors that complete and check YAML."""
    document = Recipe.model_json_schema()
    document["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    document["title"] = "biomistral recipe"
    for cls, key in _ONE_NEEDS_NO_LIST:
        definition = document if cls is Recipe else document["$defs"][cls.__name__]
        rule = definition["properties"][key]
        whole = {name: rule.pop(name) for name in ("type", "items", "minItems") if name in rule}
        rule["anyOf"] = [whole["items"], whole]
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def explain(recipe: Recipe) -> str:
    """The resolved recipe as YAML, each field with its meaning; set values are marked with ``*``."""
    return "\n".join(_explain_model(recipe, indent=0)) + "\n"


def reference() -> str:
    """The reference page of the recipe, in Markdown."""
    parts = [
        "# The recipe, field by field",
        "Made from `biomistral/recipe/settings.py` by `make docs`; do not edit by hand.",
        (
            "A *parameter* of a merge is a number, a list of numbers (a gradient over the layers, "
            "interpolated) or a list of `{filter, value}`, of which the first whose `filter` is part of "
            "a tensor's name counts."
        ),
        (
            "`${NAME}` in a text is replaced by an environment variable, `${NAME:-default}` with a "
            "default. Paths are relative to the folder the command is run in."
        ),
    ]
    for heading, classes in SECTIONS:
        parts.append(f"## {heading}")
        for cls in classes:
            parts += [f"### {cls.__name__}", (cls.__doc__ or "").strip(), _table(cls)]
    return "\n\n".join(parts) + "\n"


def _table(cls: type[Settings]) -> str:
    rows = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for name, field in cls.model_fields.items():
        default = "**required**" if field.is_required() else f"`{_default(field)}`"
        meaning = (field.description or "").replace("|", "\\|")
        rows.append(f"| `{name}` | {_type(field.annotation)} | {default} | {meaning} |")
    return "\n".join(rows)


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if isinstance(value, pydantic.BaseModel):
        value = value.model_dump(mode="json")
    return json.dumps(value, ensure_ascii=False)


def _type(annotation: Any) -> str:
    """A type as a reader of YAML would say it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(arguments[0])
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin is list:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"mapping of name to {_type(arguments[1])}"
    if arguments:
        if settings.FilteredValue in _classes(annotation):
            return "parameter"
        kinds = [_type(argument) for argument in arguments if argument is not type(None)]
        return " or ".join(dict.fromkeys(kinds))
    names = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _classes(annotation: Any) -> list[Any]:
    arguments = typing.get_args(annotation)
    return [c for a in arguments for c in _classes(a)] if arguments else [annotation]


def _explain_model(model: pydantic.BaseModel, indent: int) -> Iterator[str]:
    pad = "  " * indent
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        mark = "*" if name in model.model_fields_set else " "
        comment = f"  #{mark} {field.description}" if field.description else ""
        if isinstance(value, pydantic.BaseModel):
            yield f"{pad}{name}:{comment}"
            yield from _explain_model(value, indent + 1)
        elif isinstance(value, dict) and value:
            yield f"{pad}{name}:{comment}"
            for key, item in value.items():
                yield f"{pad}  {_key(key)}:"
                yield from _explain_model(item, indent + 2)
        elif isinstance(value, list) and any(isinstance(v, pydantic.BaseModel) for v in value):
            yield f"{pad}{name}:{comment}"
            for item in value:
                lines = list(_explain_model(item, indent + 2))
                yield f"{pad}  - {lines[0].lstrip()}"
                yield from lines[1:]
        else:
            yield f"{pad}{name}: {json.dumps(value, ensure_ascii=False)}{comment}"


def _key(name: str) -> str:
    """A name as a key of YAML: in quotes if it could be read as a number, a truth or nothing."""
    plain = name[0].isalpha() and name.lower() not in {"true", "false", "null"}
    return name if plain else json.dumps(name)
