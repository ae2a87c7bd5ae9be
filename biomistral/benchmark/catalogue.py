"""What a data folder holds: which task in which language and split lies in which file.

Looks at names only; opens no file but ``task.yaml``. Published files are found by the patterns of
``tasks.py``, own tasks by their folders. An own task with the name of a published one adds
languages to it (translations, with the ids of the original).
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from biomistral.benchmark import release
from biomistral.benchmark.hub import HUB, fetched
from biomistral.benchmark.own_tasks import FORMATS, OwnTask, find_own_tasks
from biomistral.benchmark.tasks import (
    FALLBACK_LANGUAGE,
    TASKS,
    FilePatterns,
    Format,
    PublishedTask,
)
from biomistral.errors import InputError, did_you_mean
from biomistral.languages import language_of
from biomistral.recipe.settings import HubDataset
from biomistral.records import Split, Task


@dataclass(frozen=True, slots=True)
class QuestionFile:
    """One file of questions."""

    path: Path
    task: str
    language: str
    split: Split
    format: Format
    name: str  # of the file, wherever the data lies: tells what it is and goes into fingerprints


@dataclass(slots=True)
class Catalogue:
    """The tasks of a data folder, in table order, and their files."""

    folder: Path
    tasks: dict[str, Task] = field(default_factory=dict)
    files: dict[tuple[str, str], list[QuestionFile]] = field(default_factory=dict)
    notes: dict[tuple[str, str], str] = field(default_factory=dict)  # on published files
    # Of each own task its task.yaml, by the name that goes into fingerprints.
    descriptions: dict[str, dict[str, Path]] = field(default_factory=dict)

    def has(self, task: str, language: str, *splits: Split) -> bool:
        """Whether a task has questions of one of these splits in a language."""
        return any(file.split in splits for file in self.files.get((task, language), ()))

    def languages_of(self, task: str) -> list[str]:
        """Languages in which a task has test questions."""
        return [
            language
            for name, language in self.files
            if name == task and self.has(task, language, "test")
        ]


@dataclass(frozen=True, slots=True)
class Choice:
    """The tasks asked for, each with the languages it has of those asked for."""

    languages: dict[str, list[str]]  # by task
    absent: list[str]  # "task/language" asked for and not there


def read_catalogue(
    data: str, hub: Sequence[HubDataset] = (), translations: Sequence[str] = ()
) -> Catalogue:
    """List the tasks of a data folder, those of the hub that it lacks, and translations of them.

    Of a task and language, the files of its makers come first, then those of BioInstructQA, then
    the hub. Raises ``InputError`` if the folder is missing, a ``task.yaml`` is wrong, one task and
    language is there twice, or a data set of the hub is not to be had.
    """
    folder = Path(data)
    if not folder.is_dir() and not hub:
        raise InputError(
            f"benchmark data {data!r}: there is no such folder; benchmark.data names the folder "
            "that holds the question files (see docs/benchmark.md)"
        )
    catalogue = Catalogue(folder)
    names = {f"/{relative}".lower(): folder / relative for relative in sorted(_files_below(folder))}
    copies = [(dataset.id, fetched(dataset)) for dataset in hub]
    for published in TASKS.values():
        for patterns in published.files:
            _add_published(catalogue, published, patterns, names)
        for patterns in release.patterns() if published.name in release.CORPORA else ():
            _add_published(catalogue, published, patterns, names)
        for name, copy in copies:
            _add_from_hub(catalogue, published, name, copy)
    for own in find_own_tasks(folder):
        _add_own(catalogue, own, folder)
    for place in map(Path, translations):
        found = find_own_tasks(place) if place.is_dir() else []
        if not found:
            raise InputError(
                f"{place}: holds no translated task; benchmark.translations names folders that "
                "biomistral translate made"
            )
        for own in found:
            _add_own(catalogue, own, place, "translations/")
    return catalogue


def choose(
    catalogue: Catalogue, tasks: Literal["all"] | Sequence[str], languages: Sequence[str]
) -> Choice:
    """Match what is asked for with what is there.

    Raises ``InputError`` if a named task has no file, there is no task at all, or one of the
    languages has no task.
    """
    codes = list(dict.fromkeys(language_of(language).code for language in languages))
    names = list(catalogue.tasks) if tasks == "all" else list(dict.fromkeys(tasks))
    for name in names:
        _refuse_absent(catalogue, name)
    if not names:
        raise InputError(
            f"{catalogue.folder}: holds none of the published question files and no folder with a "
            f"task.yaml; looked for:\n{_looked_for(list(TASKS.values()))}"
        )
    chosen: dict[str, list[str]] = {}
    absent = []
    for name in names:
        chosen[name] = [code for code in codes if catalogue.has(name, code, "test")]
        absent += [f"{name}/{code}" for code in codes if code not in chosen[name]]
    for code in codes:
        if not any(code in present for present in chosen.values()):
            there = sorted({code for name in names for code in catalogue.languages_of(name)})
            raise InputError(
                f"language {code}: none of the tasks has questions in it ({', '.join(names)}); "
                f"in {catalogue.folder} they are in {', '.join(there)}"
            )
    return Choice({name: present for name, present in chosen.items() if present}, absent)


def files_of(catalogue: Catalogue, task: str, languages: Sequence[str]) -> list[QuestionFile]:
    """Files to read for a task in these languages.

    Those of English come along if a language has no worked examples of its own but English has.
    """
    wanted = list(languages)
    lacking = [code for code in wanted if not catalogue.has(task, code, "train", "validation")]
    if lacking and catalogue.has(task, FALLBACK_LANGUAGE, "train", "validation"):
        wanted = list(dict.fromkeys([*wanted, FALLBACK_LANGUAGE]))
    return [file for code in wanted for file in catalogue.files.get((task, code), ())]


def _add_published(
    catalogue: Catalogue, published: PublishedTask, patterns: FilePatterns, names: dict[str, Path]
) -> None:
    """Add the files of a task in one language, unless others are there already."""
    files = [
        QuestionFile(
            path,
            published.name,
            patterns.language,
            split,
            patterns.format,
            path.relative_to(catalogue.folder).as_posix(),
        )
        for split, wanted in _by_split(patterns)
        if (path := _first_match(names, wanted)) is not None
    ]
    _add_files(catalogue, published, files, patterns.note)


def _add_from_hub(catalogue: Catalogue, published: PublishedTask, name: str, copy: Path) -> None:
    """Add a task of a data set of the hub; examples alone join a test set that has none."""
    patterns = HUB[name].get(published.name)
    if patterns is None:
        return
    files = [
        QuestionFile(
            path,
            published.name,
            patterns.language,
            split,
            patterns.format,
            f"hub/{name}/{path.relative_to(copy).as_posix()}",
        )
        for split, wanted in _by_split(patterns)
        for pattern in wanted
        for path in sorted(copy.glob(pattern))
    ]
    there = catalogue.files.get((published.name, patterns.language), [])
    if not patterns.test and there and {file.split for file in there} == {"test"}:
        there += files
    else:
        _add_files(catalogue, published, files)


def _add_files(
    catalogue: Catalogue, published: PublishedTask, files: list[QuestionFile], note: str = ""
) -> None:
    if not any(file.split == "test" for file in files):
        return
    key = published.name, files[0].language
    if catalogue.files.setdefault(key, files) is files:
        catalogue.notes[key] = note
        catalogue.tasks[published.name] = Task(
            name=published.name,
            title=published.title,
            group=published.group,
            source=published.source,
            licence=published.licence,
        )


def _add_own(catalogue: Catalogue, own: OwnTask, root: Path, prefix: str = "") -> None:
    described = own.description
    others = catalogue.descriptions.setdefault(described.name, {})
    if others and not prefix:
        raise InputError(
            f"{own.path}: the name {described.name!r} is also in {next(iter(others.values()))}; a "
            "name must be unique"
        )
    codes = list(dict.fromkeys(language for language, _ in own.files))
    for code in codes:
        if there := catalogue.files.get((described.name, code)):
            raise InputError(
                f"{own.path}: the task {described.name!r} is already there in {code} "
                f"({there[0].path}); give yours another name"
            )
    for (code, split), path in own.files.items():
        file_format = FORMATS[path.suffix]
        name = prefix + path.relative_to(root).as_posix()
        file = QuestionFile(path, described.name, code, split, file_format, name)
        catalogue.files.setdefault((described.name, code), []).append(file)
    of_languages = "-".join(codes) if prefix else ""
    others[f"{prefix}{of_languages}{own.path.relative_to(root).as_posix()}"] = own.path
    if published := catalogue.tasks.get(described.name):
        origin = f"{', '.join(codes)}: from {described.source} ({described.licence})"
        note = ". ".join(filter(None, (origin, described.note)))
        catalogue.tasks[described.name] = replace(published, note=note)
        return
    catalogue.tasks[described.name] = Task(
        name=described.name,
        title=described.title,
        group=described.group,
        source=described.source,
        licence=described.licence,
        note=described.note,
    )


def _by_split(patterns: FilePatterns) -> list[tuple[Split, tuple[str, ...]]]:
    return [
        ("train", patterns.train),
        ("validation", patterns.validation),
        ("test", patterns.test),
    ]


def _first_match(names: dict[str, Path], patterns: Sequence[str]) -> Path | None:
    """Return the file that matches the first pattern with a match; two of them are an error."""
    for pattern in patterns:
        matches = [path for name, path in names.items() if fnmatch.fnmatchcase(name, pattern)]
        if len(matches) > 1:
            raise InputError(
                f"{matches[0]} and {matches[1]}: both look like one published file; keep only one "
                "of them below the data folder"
            )
        if matches:
            return matches[0]
    return None


def _refuse_absent(catalogue: Catalogue, name: str) -> None:
    if name in catalogue.tasks:
        return
    if name in TASKS:
        raise InputError(
            f"task {name}: no test file in {catalogue.folder}; looked for:\n"
            f"{_looked_for([TASKS[name]])}"
        )
    known = list(dict.fromkeys([*TASKS, *catalogue.tasks]))
    raise InputError(
        f"task {name!r}: there is no such published task, and no task.yaml in {catalogue.folder} "
        f"has that name; known are {', '.join(known)}{did_you_mean(name, known)}"
    )


def _looked_for(tasks: Sequence[PublishedTask]) -> str:
    lines = [
        f"  {task.name} ({patterns.language}): {' or '.join(patterns.test)}"
        for task in tasks
        for patterns in task.files
    ]
    return "\n".join(lines)


def _files_below(folder: Path) -> Iterator[str]:
    """Yield paths of files relative to ``folder``; links are followed, hidden folders are not."""
    seen = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        real = Path(root).resolve()
        if real in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        for file in files:
            yield (Path(root) / file).relative_to(folder).as_posix()
