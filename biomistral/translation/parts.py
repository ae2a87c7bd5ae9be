"""The texts of one question that are translated together, so that their terms agree.

Knows nothing about languages or about who translates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from biomistral.records import LETTERS, Question


@dataclass(frozen=True, slots=True)
class Parts:
    """Stem, choices and context of a question."""

    stem: str
    choices: tuple[str, ...]
    context: str = ""

    @classmethod
    def of(cls, question: Question) -> Parts:
        """Return the texts of a question."""
        return cls(question.stem, question.choices, question.context)

    def texts(self) -> Iterator[tuple[str, str]]:
        """Yield name and text of each part: context (if there is one), question, A, B, ..."""
        if self.context:
            yield "context", self.context
        yield "question", self.stem
        yield from zip(LETTERS, self.choices, strict=False)

    def joined(self) -> str:
        """Return all texts, one a line."""
        return "\n".join(text for _, text in self.texts())


def to_json(parts: Parts) -> dict[str, Any]:
    """Return the object that a translator is shown: question, options by letter, context if any."""
    shown: dict[str, Any] = {"context": parts.context} if parts.context else {}
    options = dict(zip(LETTERS, parts.choices, strict=False))
    return shown | {"question": parts.stem, "options": options}


def from_json(value: Any, source: Parts) -> Parts:
    """Read a translation of ``source`` in the form of ``to_json``.

    Raises ``ValueError`` that says what is missing, too much or of another type.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"is a {type(value).__name__}, not an object")  # noqa: TRY004
    options = value.get("options")
    if not isinstance(options, Mapping):
        raise ValueError("has no object 'options'")  # noqa: TRY004
    due = list(LETTERS[: len(source.choices)])
    if missing := [letter for letter in due if letter not in options]:
        raise ValueError(f"lacks the options {', '.join(missing)}")
    if extra := [str(letter) for letter in options if letter not in due]:
        raise ValueError(f"has options that are not in the original: {', '.join(extra)}")
    texts = {"question": value.get("question"), **{key: options[key] for key in due}}
    if source.context:
        texts["context"] = value.get("context")
    for name, text in texts.items():
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"has no text for {name}")
    return Parts(
        texts["question"].strip(),
        tuple(options[key].strip() for key in due),
        texts["context"].strip() if source.context else "",
    )
