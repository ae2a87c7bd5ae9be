"""How a configuration names a model: a folder or a hub repository, with a revision, with an adapter.

    path        owner/name        owner/name@revision        base+adapter        a@x+b@y

A folder that has exactly such a name is that folder. Or in mergekit's long form:

    {model: {path: owner/name, revision: x}, lora: {path: adapter}}
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biomistral.models.hub import is_hub_id, local_folder, name_of


@dataclass(frozen=True)
class Part:
    """A folder or a hub repository."""

    path: str
    revision: str | None = None

    @property
    def text(self) -> str:
        """As it is written in a configuration."""
        return self.path if self.revision is None else f"{self.path}@{self.revision}"


@dataclass(frozen=True)
class Reference:
    """A model, and the adapter that is added to it when it is read."""

    model: Part
    adapter: Part | None = None

    @property
    def text(self) -> str:
        """As it is written in a configuration."""
        return "+".join(part.text for part in self.parts)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The one or two folders that it stands for."""
        return (self.model,) if self.adapter is None else (self.model, self.adapter)


def read_reference(value: Any) -> Reference:
    """Read either form. Raises ``ValueError`` that says what is wrong with it."""
    if isinstance(value, str):
        return parse_reference(value)
    if not isinstance(value, dict) or "model" not in value:
        raise ValueError(f"{value!r} is no model; {_ALLOWED}, or {_LONG_FORM}")
    if value.get("override_architecture"):
        raise ValueError("override_architecture is not supported; leave it out")
    if unknown := sorted(map(str, value.keys() - {"model", "lora", "override_architecture"})):
        raise ValueError(f"{unknown[0]!r} is no key of a model; write {_LONG_FORM}")
    adapter = value.get("lora")
    return Reference(_long_part(value["model"]), _long_part(adapter) if adapter else None)


def _long_part(value: Any) -> Part:
    if isinstance(value, str):
        return _part(value, value)
    given = value if isinstance(value, dict) and value.keys() <= {"path", "revision"} else {}
    path, revision = given.get("path"), given.get("revision")
    if not (path and isinstance(path, str)) or not isinstance(revision, str | None):
        raise ValueError(f"{value!r} is no model; write {_LONG_FORM}")
    _check_revision(path, revision)
    return Part(path, revision or None)


def parse_reference(text: str) -> Reference:
    """Read the name of a model. Raises ``ValueError`` that says what is wrong with it."""
    if Path(text).is_dir():
        return Reference(Part(text))
    model, plus, adapter = text.partition("+")
    if "+" in adapter:
        raise ValueError(
            f"{text!r} has more than one +; one adapter can be added to a model (base+adapter)"
        )
    return Reference(_part(model, text), _part(adapter, text) if plus else None)


def _part(text: str, whole: str) -> Part:
    if text and Path(text).is_dir():
        return Part(text)
    path, at, revision = text.partition("@")
    if not path or (at and not revision) or "@" in revision:
        raise ValueError(f"{whole!r} is no model; {_ALLOWED}")
    _check_revision(path, revision)
    return Part(path, revision or None)


_ALLOWED = "allowed are a folder, owner/name, owner/name@revision and base+adapter"
_LONG_FORM = "{model: {path: ..., revision: ...}, lora: {path: ...}}"


def _check_revision(path: str, revision: str | None) -> None:
    if revision and Path(path).is_dir():
        raise ValueError(
            f"{path!r} is a folder here, which has no revision {revision!r}; leave the revision "
            "out, or start where no folder has the name of the hub repository that is meant"
        )


def identity(reference: Reference) -> Reference:
    """Return what is equal for all ways to name one model: folders are resolved."""
    parts = (
        Part(str(Path(part.path).resolve())) if Path(part.path).is_dir() else part
        for part in reference.parts
    )
    return Reference(*parts)


def locate(references: Iterable[Reference], *, allow_pickle: bool = False) -> dict[str, Path]:
    """Return the folder of every part by its text, fetching from the hub what is not here.

    Raises ``InputError`` or ``ModelError`` as ``hub.local_folder`` does.
    """
    parts = {part.text: part for reference in references for part in reference.parts}
    return {
        text: local_folder(part.path, part.revision, allow_pickle=allow_pickle)
        for text, part in parts.items()
    }


def shown(name: str) -> str:
    """Return the name of a model without the folders that lead to it: they are nobody's business.

    Names of the hub and of recipes stay as they are.
    """
    return "+".join(_shown(text, 0) for text in name.split("+"))


def labels(names: Sequence[str]) -> dict[str, str]:
    """Return what to show for each of several models: ``shown``, and what tells equal ones apart.

    Folders of one name get as many of the folders above them as it takes: ``model (run-2)``.
    """
    found = {name: shown(name) for name in names}
    for parents in range(1, max((len(Path(name).absolute().parts) for name in names), default=0)):
        given = list(found.values())
        equal = [name for name, label in found.items() if given.count(label) > 1]
        if not equal:
            break
        found |= {name: "+".join(_shown(t, parents) for t in name.split("+")) for name in equal}
    return found


def _shown(text: str, parents: int) -> str:
    if is_hub_id(text.partition("@")[0]):
        return text
    place = Path(os.path.abspath(text))  # noqa: PTH100  `.` and `..` have names, links keep theirs
    above = place.parts[1:-1][-parents:] if parents else ()
    return f"{name_of(place)} ({', '.join(above)})" if above else name_of(place)
