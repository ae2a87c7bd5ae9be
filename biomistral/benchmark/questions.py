"""The ``questions`` artefact: what is asked, and what serves as worked examples.

    questions.parquet   records.Question: split test is evaluated; train and validation are examples
    runs.parquet        hashes of 13 words in a row of what is asked: to keep it out of a corpus
    tasks.parquet       records.Task: one row per task, its note says what was left out and why

Reads the files of a data folder and writes the artefact; knows nothing about prompts or models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from biomistral import artifacts, versions
from biomistral.artifacts import Origin
from biomistral.benchmark.catalogue import Catalogue, Choice, choose, files_of, read_catalogue
from biomistral.benchmark.contamination import runs_of
from biomistral.benchmark.loaders import load
from biomistral.benchmark.parsing import Place
from biomistral.benchmark.selection import Selection, num_equal_choices, reasons, select
from biomistral.benchmark.tasks import FALLBACK_LANGUAGE, TASKS, ZERO_SHOT
from biomistral.ngrams import WIDTH, write_runs
from biomistral.progress import Progress, ignore
from biomistral.recipe.settings import BenchmarkSettings
from biomistral.records import Question, Task, write_records

QUESTIONS = "questions.parquet"
TASK_TABLE = "tasks.parquet"
RUNS = "runs.parquet"

Tasks = Literal["all"] | Sequence[str]


@dataclass(slots=True)
class _Read:
    """The files of one task, read: questions by language."""

    tests: dict[str, list[Question]] = field(default_factory=dict)
    pools: dict[str, list[Question]] = field(default_factory=dict)
    stored: dict[str, Question] = field(default_factory=dict)  # examples published with tests
    left_out: dict[str, Counter[str]] = field(default_factory=dict)  # of the test files


def find_question_files(
    settings: BenchmarkSettings, tasks: Tasks, languages: Sequence[str]
) -> list[tuple[str, Path]]:
    """List the files that ``load_questions`` will read, descriptions of own tasks included.

    Each comes with its path below the data folder, which says what task, language and split it is.
    Raises ``InputError`` as ``load_questions`` does for files that are not there.
    """
    catalogue = read_catalogue(settings.data, settings.hub, settings.translations)
    return _files_read(catalogue, choose(catalogue, tasks, languages))


def load_questions(
    settings: BenchmarkSettings,
    tasks: Tasks,
    languages: Sequence[str],
    out: Path,
    *,
    limit: int | None = None,
    shots_needed: int = 9,
    origin: Origin | None = None,
    progress: Progress = ignore,
) -> Path:
    """Make the ``questions`` artefact at ``out`` and return its path.

    ``tasks`` are all that are found in the data folder, or names in table order; a task that lacks
    one of the languages is evaluated in the others. Of each task and language at most ``limit``
    test questions are taken, evenly spaced over the file (not its first ones), and the same in
    all languages that share ids. A task without any file of examples gives up ``shots_needed``
    test questions for them (0 if none are shown).

    Raises ``InputError`` if a task or language has no file, or a file cannot be read.
    """
    catalogue = read_catalogue(settings.data, settings.hub, settings.translations)
    choice = choose(catalogue, tasks, languages)
    numbers = {"limit": limit, "shots_needed": shots_needed}
    origin = origin or Origin(
        kind="questions",
        name=out.name,
        settings={"tasks": list(choice.languages), "languages": list(languages), **numbers},
        inputs={"files": artifacts.fingerprint_of_files(_files_read(catalogue, choice))},
        step_version=versions.STEP_VERSIONS["questions"],
    )
    with artifacts.create(out, origin) as draft:
        questions: list[Question] = []
        rows: list[Task] = []
        counts: dict[str, Any] = {}
        for index, (name, codes) in enumerate(choice.languages.items()):
            read, chosen = _chosen(catalogue, name, codes, limit, shots_needed)
            questions += _in_use(chosen, codes) + _stored(chosen, codes, read.stored)
            counts[name] = {code: _counts(read, code, chosen[code]) for code in codes}
            rows.append(_with_note(catalogue.tasks[name], counts[name], chosen, catalogue.notes))
            progress(index + 1, len(choice.languages), f"questions of {name}")
        write_records(draft.folder / QUESTIONS, questions, Question)
        write_records(draft.folder / TASK_TABLE, rows, Task)
        write_runs(draft.folder / RUNS, runs_of(questions).values(), WIDTH)
        draft.counts.update({"tasks": counts, "absent": choice.absent})
    return out


def questions_of(
    catalogue: Catalogue, name: str, codes: Sequence[str], limit: int | None, shots_needed: int
) -> list[Question]:
    """Read one task in some languages: what ``load_questions`` writes of it."""
    read, chosen = _chosen(catalogue, name, codes, limit, shots_needed)
    return _in_use(chosen, codes) + _stored(chosen, codes, read.stored)


def _chosen(
    catalogue: Catalogue, name: str, codes: Sequence[str], limit: int | None, shots_needed: int
) -> tuple[_Read, dict[str, Selection]]:
    read = _read(catalogue, name, codes)
    needed = 0 if name in ZERO_SHOT else shots_needed
    return read, select(read.tests, read.pools, limit=limit, shots_needed=needed)


def _files_read(catalogue: Catalogue, choice: Choice) -> list[tuple[str, Path]]:
    """Place below the data folder and path of each file, in an order of their names only."""
    paths = {
        file.name: file.path
        for name, codes in choice.languages.items()
        for file in files_of(catalogue, name, codes)
    }
    for task, descriptions in catalogue.descriptions.items():
        if task in choice.languages:
            paths |= descriptions
    return sorted(paths.items())


def _read(catalogue: Catalogue, name: str, codes: Sequence[str]) -> _Read:
    read = _Read()
    for file in files_of(catalogue, name, codes):
        place = Place(str(file.path), file.task, file.language, file.split)
        loaded = load(file.format, file.path.read_bytes(), place)
        if file.split == "test":
            read.tests[file.language] = loaded.questions
            read.left_out[file.language] = loaded.left_out
            read.stored.update((example.id, example) for example in loaded.examples)
        else:
            read.pools.setdefault(file.language, []).extend(loaded.questions)
    return read


def _in_use(selections: Mapping[str, Selection], codes: Sequence[str]) -> list[Question]:
    """Evaluated questions of the languages asked for; examples of these and of the fallback."""
    evaluated = [question for code in codes for question in selections[code].evaluated]
    examples = [question for chosen in selections.values() for question in chosen.examples]
    return [*evaluated, *examples]


def _stored(
    selections: Mapping[str, Selection], codes: Sequence[str], stored: Mapping[str, Question]
) -> list[Question]:
    """Examples that were published with the evaluated questions, each once."""
    keys = (
        key
        for code in codes
        for question in selections[code].evaluated
        for key in question.stored_shots
    )
    return [stored[name] for name in dict.fromkeys(key.partition(":")[2] for key in keys)]


def _counts(read: _Read, code: str, selection: Selection) -> dict[str, Any]:
    """Numbers of one task in one language, for the manifest and the note."""
    return {
        "test_questions": len(read.tests[code]),
        "evaluated": len(selection.evaluated),
        "examples": len(selection.examples),
        "equal_choices": num_equal_choices(selection.evaluated),
        "left_out": dict(sorted((read.left_out[code] + reasons(selection)).items())),
    }


# --- notes ----------------------------------------------------------------------------------------


def _with_note(
    task: Task,
    counts: Mapping[str, Any],
    selections: Mapping[str, Selection],
    notes: Mapping[tuple[str, str], str],
) -> Task:
    """Return the task with a note that says what a reader must know, most general first."""
    languages: dict[str, list[str]] = {}  # by sentence, to say once what holds for several
    for code, numbers in counts.items():
        known = [notes[task.name, code]] if notes.get((task.name, code)) else []
        for sentence in known + _sentences(task.name, code, numbers, selections[code]):
            languages.setdefault(sentence, []).append(code)
    said = [f"{', '.join(codes)}: {sentence}" for sentence, codes in languages.items()]
    return replace(task, note=". ".join(filter(None, [task.note.rstrip("."), *said])))


def _sentences(name: str, code: str, numbers: Mapping[str, Any], selection: Selection) -> list[str]:
    left_out, found = dict(numbers["left_out"]), numbers["test_questions"]
    sentences = _wrong_size(name, found)
    if reserved := left_out.pop("kept as worked examples", 0):
        sentences.append(
            f"{reserved} of {found} test questions serve as worked examples and are not evaluated "
            "(no training file was found)"
        )
    if left_out.pop("over the limit", 0):
        sentences.append(
            f"{numbers['evaluated']} of {found} test questions were evaluated, evenly spaced"
        )
    sentences += [f"left out, {reason}: {number}" for reason, number in left_out.items()]
    if equal := numbers["equal_choices"]:
        sentences.append(f"{equal} questions have two equal choices and were kept")
    if not selection.examples and code != FALLBACK_LANGUAGE and name not in ZERO_SHOT:
        sentences.append("worked examples are in English")
    return sentences


def _wrong_size(name: str, found: int) -> list[str]:
    """What the table says of a published task whose size is not as published."""
    if name not in TASKS or found == TASKS[name].num_test_questions:
        return []
    return [f"{found} test questions were found, {TASKS[name].num_test_questions} published"]
