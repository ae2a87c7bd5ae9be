"""Find the files that patterns name. Knows nothing about what is in them.

Paths are plain text here: a corpus may have millions, and ``Path`` objects would fill memory.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from biomistral.corpus.packages import PACKAGE_SUFFIXES
from biomistral.corpus.texts import TEXT_SUFFIXES
from biomistral.errors import InputError
from biomistral.recipe.settings import CorpusSettings

ARTICLE_SUFFIXES = (".xml", ".nxml", ".xml.gz", ".nxml.gz")


@dataclass(frozen=True, slots=True)
class Source:
    """One file: ``path`` to open (absolute), ``name`` to record (its end, below the pattern)."""

    path: str
    name: str


def find_articles(settings: CorpusSettings) -> list[Source]:
    """Files and packages of articles, sorted by path, each once.

    Raises ``InputError`` for a pattern that matches no file of the right kind.
    """
    suffixes = (*ARTICLE_SUFFIXES, *PACKAGE_SUFFIXES)
    return _find(settings.articles, suffixes, f"corpus {settings.name!r}, articles")


def find_texts(settings: CorpusSettings) -> list[Source]:
    """Files of plain texts, sorted by path, each once. Raises as ``find_articles`` does."""
    return _find(settings.texts, TEXT_SUFFIXES, f"corpus {settings.name!r}, texts")


def _find(patterns: list[str], suffixes: tuple[str, ...], where: str) -> list[Source]:
    found: dict[str, Source] = {}
    for pattern in patterns:
        expanded = os.path.abspath(os.path.expanduser(pattern))  # noqa: PTH100, PTH111
        root = _fixed_part(expanded)
        num_matches = num_usable = 0
        for match in _files(expanded):
            num_matches += 1
            if match.lower().endswith(suffixes) and os.path.isfile(match):  # noqa: PTH113
                num_usable += 1
                found.setdefault(match, Source(match, match[len(root) :]))
        if not num_usable:
            raise InputError(
                f"{where}: the pattern {pattern!r} matches {num_matches or 'no'} files"
                f"{', none of a kind that can be read' if num_matches else ''} "
                f"(looked from {Path.cwd()}); allowed are {', '.join(suffixes)}; "
                "mend the pattern, or put files there"
            )
    return [found[path] for path in sorted(found)]


def _files(pattern: str) -> Iterator[str]:
    """What a pattern matches; of a folder that is named without wildcards, all files in it."""
    if glob.has_magic(pattern) or not os.path.isdir(pattern):  # noqa: PTH112
        yield from glob.iglob(pattern, recursive=True)  # noqa: PTH207
        return
    for folder, below, names in os.walk(pattern):
        below[:] = [name for name in below if not name.startswith(".")]
        yield from (os.path.join(folder, name) for name in names if not name.startswith("."))  # noqa: PTH118


def _fixed_part(pattern: str) -> str:
    """The folders of a pattern before the first wildcard, with a slash; of a file, its folder."""
    if os.path.isdir(pattern):  # noqa: PTH112
        return f"{pattern}/"
    parts = Path(pattern).parts
    fixed = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    return f"{Path(*parts[:fixed])}/".replace("//", "/")
