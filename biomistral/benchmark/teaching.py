"""Training questions of the benchmark: read, kept apart from all test questions, put into prompts.

    questions.parquet   records.Question: what may be learned from, all of split train
    tasks.parquet       records.Task, one row per task
    refused.jsonl       training questions that overlap with a test question (``refusals``), by id

The prompts are those of evaluation (``templates``) without worked examples, to the byte. Knows
nothing about tokens or training.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from biomistral import artifacts, versions
from biomistral.artifacts import Origin
from biomistral.benchmark.catalogue import Catalogue, QuestionFile, choose, read_catalogue
from biomistral.benchmark.loaders import load
from biomistral.benchmark.parsing import Place
from biomistral.benchmark.questions import QUESTIONS, TASK_TABLE, Tasks
from biomistral.benchmark.refusals import refuse
from biomistral.benchmark.templates import Render, continuations_of, form_of
from biomistral.errors import InputError
from biomistral.progress import Progress, ignore
from biomistral.recipe.settings import BenchmarkSettings
from biomistral.records import Question, Request, Scoring, Task, write_records

REFUSED = "refused.jsonl"
SCORING: Mapping[str, Scoring] = {"letter": "letter", "text": "cloze"}  # of the kinds of answers


def find_training_files(
    settings: BenchmarkSettings, tasks: Tasks, languages: Sequence[str]
) -> list[tuple[str, Path]]:
    """List the files that ``load_training_questions`` will read: name below the folder, and path.

    Raises ``InputError`` as that does for files that are not there.
    """
    catalogue = read_catalogue(settings.data, settings.hub)
    files = [*_training_files(catalogue, tasks, languages), *_test_files(catalogue)]
    return sorted({(file.name, file.path) for file in files})


def load_training_questions(
    settings: BenchmarkSettings,
    tasks: Tasks,
    languages: Sequence[str],
    out: Path,
    *,
    origin: Origin | None = None,
    progress: Progress = ignore,
) -> Path:
    """Make the artefact of training questions at ``out`` and return its path.

    They are the questions of the split train of the tasks, without those that overlap with a test
    question of any task that is in the data folder, evaluated or not. Raises ``InputError`` if a
    named task has no training file, or nothing is left.
    """
    catalogue = read_catalogue(settings.data, settings.hub)
    files = _training_files(catalogue, tasks, languages)
    origin = origin or Origin(
        kind="questions",
        name=out.name,
        settings={"tasks": tasks if tasks == "all" else list(tasks), "languages": list(languages)},
        inputs={
            "files": artifacts.fingerprint_of_files(find_training_files(settings, tasks, languages))
        },
        step_version=versions.STEP_VERSIONS["training_questions"],
    )
    with artifacts.create(out, origin) as draft:
        progress(0, None, "reading training and test questions")
        training = _distinct(_read(files))
        refused = refuse(training, _read(_test_files(catalogue)))
        not_allowed = {(r.task, r.language, r.question_id) for r in refused}
        kept = [q for q in training if (q.task, q.language, q.id) not in not_allowed]
        if not kept:
            raise InputError(
                f"{settings.data}: none of the {len(training)} training questions is left, "
                f"{len(refused)} overlap with test questions; name other tasks"
            )
        write_records(draft.folder / QUESTIONS, kept, Question)
        used = dict.fromkeys(question.task for question in kept)
        write_records(draft.folder / TASK_TABLE, [catalogue.tasks[name] for name in used], Task)
        lines = (json.dumps(asdict(refusal), sort_keys=True) for refusal in refused)
        text = "".join(f"{line}\n" for line in lines)
        (draft.folder / REFUSED).write_text(text, encoding="utf-8")
        draft.counts.update(
            questions=len(kept),
            by_task=dict(Counter(question.task for question in kept)),
            refused_for_overlap=len(refused),
            refused_by_task=dict(Counter(refusal.task for refusal in refused)),
        )
    return out


def training_requests(
    questions: Sequence[Question],
    *,
    template: str = "biomistral",
    answer: Literal["letter", "text"] = "letter",
    render: Render | None = None,
) -> Iterator[Request]:
    """Yield each question as it is evaluated without worked examples.

    ``render`` is for ``template: chat``, as in ``build_requests``.
    """
    scoring = SCORING[answer]
    form = form_of(scoring, template, render=render)
    for question in questions:
        yield Request(
            question_id=question.id,
            task=question.task,
            language=question.language,
            shots=0,
            seed=0,
            scoring=scoring,
            prompt=form.prompt((), question),
            continuations=continuations_of(question, scoring, ()),
            gold=question.gold,
        )


def _training_files(
    catalogue: Catalogue, tasks: Tasks, languages: Sequence[str]
) -> list[QuestionFile]:
    """Files of the split train; a task that is named has at least one."""
    chosen = choose(catalogue, tasks, languages).languages
    files = {
        name: [
            file
            for code in codes
            for file in catalogue.files.get((name, code), ())
            if file.split == "train"
        ]
        for name, codes in chosen.items()
    }
    lacking = [name for name in files if not files[name]]
    there = sorted({name for name, code in catalogue.files if catalogue.has(name, code, "train")})
    if lacking and (tasks != "all" or not any(files.values())):
        raise InputError(
            f"task {lacking[0]}: has no training questions in {', '.join(languages)} in "
            f"{catalogue.folder}; tasks that have some: {', '.join(there) or 'none'}"
        )
    return [file for found in files.values() for file in found]


def _test_files(catalogue: Catalogue) -> list[QuestionFile]:
    return [file for files in catalogue.files.values() for file in files if file.split == "test"]


def _read(files: Sequence[QuestionFile]) -> list[Question]:
    questions = []
    for file in files:
        place = Place(str(file.path), file.task, file.language, file.split)
        questions += load(file.format, file.path.read_bytes(), place).questions
    return questions


def _distinct(questions: Sequence[Question]) -> list[Question]:
    """Without a second question of one id: two files of a task may hold the same ones."""
    return list({(q.task, q.language, q.id): q for q in reversed(questions)}.values())[::-1]
