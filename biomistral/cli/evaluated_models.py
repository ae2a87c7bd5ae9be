"""The models named on the command line of ``biomistral evaluate``, as a recipe would name them.

    FOLDER, owner/name, NAME=FOLDER    a checkpoint, or an adapter whose model is found by its name
    BASE+ADAPTER, NAME=BASE+ADAPTER    a checkpoint with an adapter added
    NAME                               with --run: a model or an adapter of that run
    URL#MODEL, NAME=URL#MODEL          a served model: https://api.openai.com/v1#gpt-4o-mini

Knows nothing about what is done with them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from biomistral.errors import InputError, did_you_mean

_NAMED = re.compile(r"([A-Za-z0-9][\w.-]*)=(.+)", re.ASCII)
_ADDRESS = re.compile(r"https?://", re.IGNORECASE)


def sources(
    words: Sequence[str], run: Path | None, api: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """Return what a recipe's ``models`` would say, by the name that each has in tables.

    ``api`` are ``FIELD=VALUE`` for all served models. Raises ``InputError`` if two have one name, a
    served one has none, or ``api`` is given and no model is served.
    """
    found: dict[str, dict[str, Any]] = {}
    for word in words:
        name, source = _source(word, run)
        if name in found:
            place = _NAMED.fullmatch(word)
            raise InputError(
                f"{word}: another model is called {name!r}, too; write one as "
                f"NAME={place[2] if place else word}"
            )
        found[name] = source
    served = [source for source in found.values() if "endpoint" in source]
    if api and not served:
        raise InputError(f"--api {api[0]}: no model is served; write one as URL#MODEL")
    for source in served:
        source.update(_fields(api))
    return found


def plain_name(path: Path) -> str:
    """A name for tables and folders: the last part of a path, of plain characters."""
    last = path.name or path.resolve().name
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in last)
    return plain.lstrip("._-")[:100] or "evaluation"


def _source(word: str, run: Path | None) -> tuple[str, dict[str, Any]]:
    named = None if Path(word).is_dir() or _ADDRESS.match(word) else _NAMED.fullmatch(word)
    name, place = named.groups() if named else ("", word)
    if _ADDRESS.match(place):
        address, sign, model = place.partition("#")
        if not sign or not model:
            raise InputError(
                f"{word}: says where, and not which model; write it as {address}#MODEL"
            )
        return name or plain_name(Path(model)), {"endpoint": address, "model": model}
    if not name and run is not None and not Path(word).is_dir():
        name, place = word, _in_run(word, run)
    return name or plain_name(Path(place)), {"path": place}


def _fields(api: Sequence[str]) -> Mapping[str, Any]:
    """Values of fields, read as YAML; unknown names are found when the recipe is checked."""
    from biomistral.recipe.yaml_text import read_yaml

    fields: dict[str, Any] = {}
    for change in api:
        field, sign, text = change.partition("=")
        if not sign or not field:
            raise InputError(f"--api {change!r}: is not of the form FIELD=VALUE")
        fields[field] = read_yaml(text, f"--api {field}")
    return fields


def _in_run(name: str, run: Path) -> str:
    """Path of a model of a run: one that it made, or one that its recipe names."""
    from biomistral.recipe import load_recipe
    from biomistral.recipe.settings import StoredModel

    for kind in ("model", "adapter"):
        if (run / kind / name).is_dir():
            return str(run / kind / name)
    declared = load_recipe(run / "recipe.yaml").models if (run / "recipe.yaml").is_file() else {}
    stored = {
        key: source.path for key, source in declared.items() if isinstance(source, StoredModel)
    }
    if name in stored:
        return stored[name]
    made = {path.name for kind in ("model", "adapter") for path in (run / kind).glob("[!.]*")}
    known = [*sorted(made), *stored]
    raise InputError(
        f"{name}: is no folder, and {run} has no such model{did_you_mean(name, known)} "
        f"(it has: {', '.join(known) or 'none'})"
    )
