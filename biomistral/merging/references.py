"""How a configuration names a model: a folder or a hub repository, with a revision, with an adapter.

    path        owner/name        owner/name@revision        base+adapter        a@x+b@y

A folder that has exactly such a name is that folder.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from biomistral.models.hub import is_hub_id, local_folder


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
    def parts(self) -> tuple[Part, ...]:
        """The one or two folders that it stands for."""
        return (self.model,) if self.adapter is None else (self.model, self.adapter)


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
        raise ValueError(
            f"{whole!r} is no model; allowed are a folder, owner/name, owner/name@revision and "
            "base+adapter"
        )
    return Part(path, revision or None)


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
    return "+".join(
        text if is_hub_id(text.partition("@")[0]) else Path(text).name for text in name.split("+")
    )
