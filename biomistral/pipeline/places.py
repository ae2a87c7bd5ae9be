"""Where the models of a recipe are that no step makes, and what they count by. Opens no weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from biomistral import artifacts
from biomistral.errors import BiomistralError
from biomistral.models.adapted import adapted
from biomistral.models.hub import is_hub_id, local_folder
from biomistral.recipe.settings import EndpointModel


@dataclass(frozen=True)
class Place:
    """Where a model is: a folder, or a hub repository that is fetched when it is needed."""

    path: str | Path
    revision: str | None = None

    def folder(self) -> Path:
        """The folder, fetched from the hub if need be; BASE+ADAPTER stays as it is written."""
        if adapted(self.path, self.revision):
            return Path(self.path)
        return local_folder(self.path, self.revision)

    def problems(self, *, whole: bool = False) -> list[str]:
        """What is wrong with a place given by the user, as far as it can be seen from here.

        With ``whole``, a model with an adapter is: it is one to be asked, and no checkpoint.
        """
        try:
            parts = None if is_hub_id(self.path) else adapted(self.path)
        except BiomistralError as error:
            return [str(error)]
        if parts and whole:
            problem = (
                f"{self.path}: is a model with an adapter, which can be evaluated and no more; merge the "
                "two (biomistral merge, see docs/merging.md) and name the folder of the result"
            )
            return [problem]
        is_there = parts or is_hub_id(self.path) or Path(self.path).is_dir()
        return [] if is_there else [f"{self.path}: there is no such model folder"]

    def fingerprint(self) -> str:
        """Of the folder's files; of name and revision for a hub repository."""
        if parts := None if self.problems() else adapted(self.path, self.revision):
            return artifacts.digest_of([artifacts.fingerprint_of_files([e]) for e in parts.folders])
        if Path(self.path).is_dir():
            return artifacts.fingerprint_of_files([Path(self.path)])
        return artifacts.digest_of([str(self.path), self.revision])


@dataclass(frozen=True)
class Served:
    """A model behind an endpoint: it has no files."""

    settings: EndpointModel

    def problems(self, *, whole: bool = False) -> list[str]:  # noqa: ARG002
        """Nothing that can be seen without asking it."""
        return []

    def fingerprint(self) -> str:
        """Of what is asked of it, and not of how fast or by which key."""
        return self.settings.digest()
