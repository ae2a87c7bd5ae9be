"""A user's own task: a folder with ``task.yaml`` and files of questions.

    my_task/task.yaml            name, title, source, licence; optional: group, languages, note
    my_task/en/test.jsonl        one folder per language ...
    my_task/en/train.jsonl       ... with up to three splits: train, validation, test
    my_task/test.jsonl           or no folders, if the task has one language

A file may also be .csv or .parquet.

Reads the description and lists the files; knows nothing about what is in them (``loaders``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from biomistral.benchmark.tasks import Format
from biomistral.errors import InputError, did_you_mean
from biomistral.languages import LANGUAGES
from biomistral.recipe.settings import LanguageCode, Name
from biomistral.records import Split

DESCRIPTION = "task.yaml"
FORMATS: dict[str, Format] = {".jsonl": "jsonl", ".csv": "csv", ".parquet": "parquet"}


class TaskDescription(BaseModel):
    """What ``task.yaml`` may say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name = Field(description="Name of the task in recipes and results.")
    title: str = Field(min_length=1, description="Name of the task in tables.")
    source: str = Field(min_length=1, description="Where the questions come from.")
    licence: str = Field(min_length=1, description="Licence of the questions.")
    group: str = Field("medical", min_length=1, description="Averages are taken within a group.")
    languages: list[LanguageCode] | None = Field(
        None, min_length=1, description="Languages it has; needed if there are no language folders."
    )
    note: str = Field("", description="What a reader of the report must know.")


@dataclass(frozen=True, slots=True)
class OwnTask:
    """One folder: its description, and its files by language and split."""

    path: Path  # of task.yaml
    description: TaskDescription
    files: dict[tuple[str, Split], Path]


def find_own_tasks(folder: Path) -> list[OwnTask]:
    """Read all tasks in ``folder`` and directly below it, in the order of their folders' names."""
    paths = [folder / DESCRIPTION, *sorted(folder.glob(f"*/{DESCRIPTION}"))]
    return [read_own_task(path) for path in paths if path.is_file()]


def read_own_task(path: Path) -> OwnTask:
    """Read one ``task.yaml`` and list the files beside it.

    Raises ``InputError`` if the description is wrong, or files and languages do not fit together.
    """
    description = _description(path)
    folder = path.parent
    files = {(language, split): file for language, split, file in _language_files(folder)}
    if flat := _splits(folder):
        if files:
            raise InputError(
                f"{folder}: has questions both beside {DESCRIPTION} and in language folders; "
                "put all of them into language folders"
            )
        if len(description.languages or []) != 1:
            raise InputError(
                f"{path}: the questions are in no language folder, so languages must name the one "
                f"they are in, such as languages: [en]; it is {description.languages}"
            )
        language = (description.languages or [])[0]
        files = {(language, split): file for split, file in flat}
    found = {language for language, split in files if split == "test"}
    wanted = set(description.languages or found)
    if not found or not wanted <= found:
        missing = ", ".join(sorted(wanted - found)) or "any language"
        raise InputError(
            f"{folder}: there is no test.jsonl for {missing}; due are <language>/test.jsonl, or "
            "test.jsonl for a task of one language"
        )
    extra = {language for language, _ in files} - wanted
    if extra and description.languages is not None:
        raise InputError(
            f"{path}: there are files for {', '.join(sorted(extra))}, but languages names only "
            f"{', '.join(description.languages)}"
        )
    return OwnTask(path, description, files)


def _description(path: Path) -> TaskDescription:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise InputError(f"{path}: is no valid YAML ({text})") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: must be a mapping with name, title, source and licence")
    try:
        description = TaskDescription.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(_problem(dict(item)) for item in error.errors())
        raise InputError(f"{path}: {problems}") from None
    if description.name == "average":
        raise InputError(f"{path}: a task cannot be named average, results use that name")
    return description


def _problem(error: dict[str, Any]) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        allowed = list(TaskDescription.model_fields)
        return f"unknown key {key!r}; allowed are {', '.join(allowed)}{did_you_mean(key, allowed)}"
    if error["type"] == "missing":
        return f"lacks the key {key!r}"
    return f"{key} is {error['input']!r}: {error['msg']}"


def _language_files(folder: Path) -> list[tuple[str, Split, Path]]:
    """Language, split and path of all files in folders; a folder of another name is an error."""
    files = []
    for child in sorted(folder.iterdir()):
        splits = _splits(child) if child.is_dir() else []
        if splits and child.name not in LANGUAGES:
            raise InputError(
                f"{child}: holds questions, but {child.name!r} is not one of the languages "
                f"{', '.join(LANGUAGES)}"
            )
        files += [(child.name, split, file) for split, file in splits]
    return files


def _splits(folder: Path) -> list[tuple[Split, Path]]:
    found: list[tuple[Split, Path]] = []
    for split in get_args(Split):
        paths = [folder / f"{split}{suffix}" for suffix in FORMATS]
        there = [path for path in paths if path.is_file()]
        if len(there) > 1:
            names = " and ".join(path.name for path in there)
            raise InputError(f"{folder}: has {names}; keep one of them")
        found += [(split, path) for path in there]
    return found
