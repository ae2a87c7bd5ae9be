"""What the parts of ``plan`` use of the plan in the making."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from biomistral.artifacts import Kind
from biomistral.pipeline import making
from biomistral.pipeline.places import Place, Served
from biomistral.pipeline.steps import Make, Step
from biomistral.recipe.settings import CorpusSettings, Recipe


class Builder(Protocol):
    """What of the plan in the making is used here."""

    recipe: Recipe
    root: Path
    steps: dict[str, Step]
    places: dict[str, Place | Served]

    def add(
        self,
        kind: Kind,
        name: str,
        settings: Mapping[str, Any],
        *,
        code: str,
        make: Make,
        needs: Iterable[str] = (),
        sources: Mapping[str, str] | None = None,
        section: str,
        missing: Iterable[str] = (),
    ) -> None:
        """Add a step."""

    def files(self, name: str, find: making.FindFiles) -> tuple[dict[str, str], list[str]]:
        """Fingerprint the user's files; or say which are not there."""

    def corpus_files(self, settings: CorpusSettings) -> tuple[dict[str, str], list[str]]:
        """Do the same for the files of a corpus."""

    def model(self, name: str) -> Place:
        """Say where a model is or will be."""

    def model_inputs(self, names: Iterable[str], *, whole: bool = False) -> dict[str, Any]:
        """Return needs, sources and what is missing of a step that reads models, perhaps whole."""

    def tokens(self, name: str) -> Path:
        """Say where the tokens of a corpus are or will be."""
