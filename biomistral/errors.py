"""The errors this package raises on purpose.

    BiomistralError
    ├── RecipeError              the recipe is wrong: carries every problem found, not only the first
    ├── InputError               a file or folder given by the user is missing, broken or unusable
    ├── ModelError               a checkpoint, tokenizer or adapter does not fit what is asked of it
    └── MissingDependencyError   an optional library is needed; names the pip line that brings it

A message says where the problem is, what is wrong (with the value), what is allowed and what to do.
The command line prints it on one line and exits with status 2. Anything that is not a
``BiomistralError`` is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterable, Sequence


class BiomistralError(Exception):
    """Base of all errors that a user can mend."""


class InputError(BiomistralError):
    """A file or folder given by the user is missing, broken or unusable."""


class ModelError(BiomistralError):
    """A checkpoint, tokenizer or adapter does not fit what is asked of it."""


class RecipeError(BiomistralError):
    """The recipe is wrong. ``problems`` has one full sentence per problem, in recipe order."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.source = source
        self.problems = tuple(problems)
        if len(self.problems) == 1:
            text = f"{source}: {self.problems[0]}"
        else:
            lines = "".join(f"\n  - {problem}" for problem in self.problems)
            text = f"{source}: {len(self.problems)} problems:{lines}"
        super().__init__(text)


class MissingDependencyError(BiomistralError):
    """An optional library is needed for what was asked."""


def require(module: str, *, extra: str, purpose: str) -> None:
    """Raise ``MissingDependencyError`` unless ``module`` can be imported; does not import it."""
    if importlib.util.find_spec(module) is None:
        raise MissingDependencyError(
            f"{purpose} needs the library '{module}', which is not installed; "
            f"run: pip install 'biomistral[{extra}]'"
        )


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """Return ``'; did you mean "x"?'`` for the closest allowed word, or an empty string."""
    close = difflib.get_close_matches(word, list(allowed), n=1, cutoff=0.6)
    return f'; did you mean "{close[0]}"?' if close else ""
