"""The questions of the page's benchmark panel: read once from a ``questions`` artefact.

Knows nothing about models; prompts are made by the functions that an evaluation uses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biomistral.benchmark.prompts import build_requests
from biomistral.benchmark.questions import QUESTIONS, TASK_TABLE
from biomistral.errors import BiomistralError, InputError, did_you_mean
from biomistral.languages import LANGUAGES
from biomistral.recipe.settings import EvaluateSettings
from biomistral.records import Question, Scoring, Task, read_records
from biomistral.serving.failures import bad_value

_PREVIEW_CHARACTERS = 90
MOST_SHOTS = 10


@dataclass(frozen=True)
class Panel:
    """Tasks, and their questions by task and language in the artefact's order."""

    tasks: Sequence[Task]
    asked: Mapping[tuple[str, str], Sequence[Question]]
    examples: Mapping[str, Sequence[Question]]  # by task

    def listing(self) -> dict[str, Any]:
        """What there is to choose from."""
        return {
            "tasks": [
                {
                    "name": task.name,
                    "title": task.title,
                    "group": task.group,
                    "languages": [
                        {"code": code, "questions": len(self.asked[task.name, code])}
                        for code in LANGUAGES
                        if (task.name, code) in self.asked
                    ],
                    "most_shots": min(MOST_SHOTS, len(self.examples.get(task.name, ()))),
                }
                for task in self.tasks
            ],
            "languages": {
                language.code: {"name": language.native_name, "direction": language.direction}
                for language in LANGUAGES.values()
            },
        }

    def previews(self, task: str, language: str, start: int, count: int) -> dict[str, Any]:
        """Beginnings of some questions, to choose one."""
        questions = self._questions(task, language)
        shown = questions[start : start + count]
        return {
            "total": len(questions),
            "questions": [
                {"number": start + index, "id": each.id, "text": _preview(each.stem)}
                for index, each in enumerate(shown, start=1)
            ],
        }

    def question(
        self, task: str, language: str, number: int, shots: int, scoring: Scoring
    ) -> dict[str, Any]:
        """One question (from 1), as a model is to see it; raises ``Failure``."""
        questions = self._questions(task, language)
        if not 1 <= number <= len(questions):
            raise bad_value(f"number: is {number}; allowed are 1 to {len(questions)}", "number")
        asked = questions[number - 1]
        settings = EvaluateSettings(
            models=["served"],
            tasks=[task],
            languages=[language],
            shots=shots,
            seeds=[1],
            scoring=[scoring],
        )
        try:
            (request,) = build_requests([asked, *self.examples.get(task, ())], settings)
        except BiomistralError as error:
            raise bad_value(str(error), "shots") from None
        group = next(each.group for each in self.tasks if each.name == task)
        return {
            "id": asked.id,
            "task": task,
            "group": group,
            "language": language,
            "direction": LANGUAGES[language].direction,
            "number": number,
            "total": len(questions),
            "stem": asked.stem,
            "context": asked.context,
            "choices": list(asked.choices),
            "gold": asked.gold,
            "prompt": request.prompt,
            "options": list(request.continuations),
            "scoring": request.scoring,
            "shots": request.shots,
        }

    def _questions(self, task: str, language: str) -> Sequence[Question]:
        names = sorted({name for name, _ in self.asked})
        if task not in names:
            raise bad_value(
                f"task: there is none named {task!r}{did_you_mean(task, names)}; there are "
                f"{', '.join(names)}",
                "task",
            )
        if (task, language) not in self.asked:
            there = [code for name, code in self.asked if name == task]
            raise bad_value(
                f"language: {task} is not there in {language!r}; it is in {', '.join(there)}",
                "language",
            )
        return self.asked[task, language]


def open_panel(folder: Path) -> Panel:
    """Read a questions artefact, or that of a run. Raises ``InputError`` if there is none."""
    found = [place for place in (folder, *sorted(folder.glob("questions/*"))) if _is_one(place)]
    if not found:
        raise InputError(
            f"--questions {folder}: has no {QUESTIONS} and {TASK_TABLE}; name a folder that a run "
            "has written, such as runs/NAME/questions/benchmark"
        )
    asked: dict[tuple[str, str], list[Question]] = {}
    examples: dict[str, list[Question]] = {}
    for question in read_records(found[0] / QUESTIONS, Question):
        if question.split == "test":
            asked.setdefault((question.task, question.language), []).append(question)
        else:
            examples.setdefault(question.task, []).append(question)
    tasks = [
        task
        for task in read_records(found[0] / TASK_TABLE, Task)
        if any(name == task.name for name, _ in asked)
    ]
    if not tasks:
        raise InputError(f"--questions {found[0]}: holds no question of the split test")
    return Panel(tasks, asked, examples)


def _is_one(folder: Path) -> bool:
    return (folder / QUESTIONS).is_file() and (folder / TASK_TABLE).is_file()


def _preview(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _PREVIEW_CHARACTERS else line[: _PREVIEW_CHARACTERS - 1] + "…"
