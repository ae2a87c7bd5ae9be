"""What is asked of a translator, and what it gives: the seam between translators and the step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from biomistral.translation.parts import Parts


@dataclass(frozen=True, slots=True)
class Wanted:
    """A question to translate, for the first time or again."""

    source: Parts
    language: str
    source_language: str = "en"
    attempt: int = 0
    faults: tuple[str, ...] = ()  # of the attempt before
    before: str = ""  # what that attempt gave, as the translator gave it


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a translator gave."""

    parts: Parts | None  # None if it could not be read
    raw: str
    faults: list[str] = field(default_factory=list)  # found while it was read


class Translator(Protocol):
    """Whoever translates. ``name`` is what results are named after."""

    name: str

    def estimate(self, wanted: Sequence[Wanted]) -> str:
        """Say what these will cost; nothing if they are free."""

    def translate(
        self, wanted: Sequence[Wanted], done: Callable[[int], None] = ...
    ) -> Iterator[Candidate]:
        """Yield a candidate for each, in order; tell ``done`` how many are there."""
