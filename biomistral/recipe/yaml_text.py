"""Read YAML by the rules of version 1.2, strictly: no key twice, nothing but plain data.

Knows nothing about what the text means, and needs neither pydantic nor PyTorch.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from biomistral.errors import RecipeError


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars: true and false are the only booleans, 2e-5 is a number, 1:30 is none."""


_YAML_1_1_ONLY = (":bool", ":int", ":float", ":timestamp")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(_YAML_1_1_ONLY)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf)$"),
    list("-+.0123456789"),
)


def _mapping_without_duplicates(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys: list[Any] = []
    for key_node, _ in node.value:
        key = "<<" if key_node.tag.endswith(":merge") else loader.construct_object(key_node, True)
        if key in keys:
            line = key_node.start_mark.line + 1
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} is given twice (line {line})", None
            )
        keys.append(key)
    return loader.construct_mapping(node, deep=True)


def _decimal(loader: _Loader, node: yaml.ScalarNode) -> int:
    """Read 010 as ten, as YAML 1.2 does; YAML 1.1 had it octal."""
    return int(loader.construct_scalar(node))


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping_without_duplicates)
_Loader.add_constructor("tag:yaml.org,2002:int", _decimal)


def read_yaml(text: str, source: str) -> Any:
    """Return what a text says. Raises ``RecipeError``, naming ``source``, if it is not YAML."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader with stricter scalars
    except RecursionError:
        raise RecipeError(source, ["is not valid YAML: it is nested too deeply"]) from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a number of 5000 digits
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise RecipeError(source, [f"is not valid YAML: {what}{where}"]) from None
