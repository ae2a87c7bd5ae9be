"""All scores of a run, to be looked up by model, task, setting and metric.

Also decides the orders in which models, tasks, languages and settings are printed. Knows nothing
about tables.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from biomistral.languages import LANGUAGES
from biomistral.records import Score, Task

AVERAGE = "average"
MEDICAL = "medical"
TRUTHFULNESS = "truthfulness"  # the group of TruthfulQA
RANDOM_CHOICE = "random choice"  # name of the baseline that gives the line of chance
MAJORITY_CHOICE = "majority choice"  # likewise: always the most frequent answer

ModelKind = Literal["model", "ensemble", "baseline"]


class Setting(NamedTuple):
    """How questions were put: what must be equal for two scores to stand side by side."""

    language: str
    scoring: str
    shots: int


_Key = tuple[Setting, str, str, str, str]  # setting, model, task, group, metric


@dataclass(frozen=True)
class Results:
    """Scores and the orders to print them in."""

    measured: tuple[Score, ...]  # all, as they came
    scores: Mapping[_Key, Score]  # without averages that cannot be compared
    models: tuple[str, ...]  # in recipe order, then ensembles, then baselines
    kinds: Mapping[str, ModelKind]
    tasks: tuple[Task, ...]  # in the benchmark's order
    settings: tuple[Setting, ...]  # English first, letters before cloze

    def find(self, setting: Setting, model: str, task: Task, metric: str) -> Score | None:
        """Return one score, or None if it was not measured."""
        return self.scores.get((setting, model, task.name, task.group, metric))

    @property
    def groups(self) -> tuple[str, ...]:
        """Groups of tasks, medical first."""
        names = dict.fromkeys(task.group for task in self.tasks)
        return tuple(sorted(names, key=lambda name: name != MEDICAL))

    @property
    def main_group(self) -> str:
        """The group that the report is about."""
        return self.groups[0] if self.groups else MEDICAL

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages that were measured, in the order of the benchmark."""
        return tuple(dict.fromkeys(setting.language for setting in self.settings))

    @property
    def main_settings(self) -> tuple[Setting, ...]:
        """The settings in the main language (English if measured), main scoring first.

        Those in which nothing of the main group was asked (TruthfulQA is zero-shot) come last.
        """
        own = [s for s in self.settings if s.language == self.languages[0]]
        return tuple(sorted(own, key=lambda s: not self.tasks_of(self.main_group, s)))

    def tasks_of(self, group: str, setting: Setting | None = None) -> tuple[Task, ...]:
        """Tasks of a group; with a setting, those with an accuracy of any model in it."""
        tasks = tuple(task for task in self.tasks if task.group == group)
        if setting is None:
            return tasks
        measured = {key[2] for key in self.scores if key[0] == setting and key[4] == "accuracy"}
        return tuple(task for task in tasks if task.name in measured)

    def num_questions(self, task: Task, language: str) -> int | None:
        """Questions of a task that were answered in a language, or None if there are none."""
        counts = [
            score.num_questions
            for key, score in self.scores.items()
            if key[0].language == language and key[2:4] == (task.name, task.group)
        ]
        return max(counts, default=None)


def average_of(group: str) -> Task:
    """Stand for the unweighted mean over the tasks of a group."""
    return Task(AVERAGE, "Average", group, "", "")


def index_results(scores: Iterable[Score], tasks: Sequence[Task], order: Sequence[str]) -> Results:
    """Index scores; ``order`` names models in the order to print, others follow as they come.

    The average of a model that lacks a task which others have is left out: it is of something else.
    """
    scores = list(scores)
    found: dict[_Key, Score] = {}
    for score in scores:
        setting = Setting(score.language, score.scoring, score.shots)
        found[setting, score.model, score.task, score.group, score.metric] = score
    kinds: dict[str, ModelKind] = {score.model: score.model_kind for score in scores}
    return Results(
        measured=tuple(scores),
        scores=_comparable(found),
        models=_models_in_order(kinds, order),
        kinds=kinds,
        tasks=(*tasks, *_undescribed(scores, tasks)),
        settings=tuple(sorted({key[0] for key in found}, key=_setting_order)),
    )


def _comparable(scores: Mapping[_Key, Score]) -> dict[_Key, Score]:
    """Drop the averages of models that were not measured on every task of the group."""
    tasks: dict[tuple[Setting, str, str], set[str]] = {}  # of one model
    every: dict[tuple[Setting, str], set[str]] = {}  # of all models
    for (setting, model, task, group, metric), score in scores.items():
        if metric == "accuracy" and task != AVERAGE and math.isfinite(score.value):
            tasks.setdefault((setting, model, group), set()).add(task)
            every.setdefault((setting, group), set()).add(task)
    return {
        key: score
        for key, score in scores.items()
        if key[2] != AVERAGE or tasks.get((key[0], key[1], key[3])) == every.get((key[0], key[3]))
    }


def _models_in_order(kinds: Mapping[str, ModelKind], order: Sequence[str]) -> tuple[str, ...]:
    names = list(dict.fromkeys([name for name in order if name in kinds] + list(kinds)))
    rank = {"model": 0, "ensemble": 1, "baseline": 2}
    return tuple(sorted(names, key=lambda name: rank[kinds[name]]))


def _undescribed(scores: Iterable[Score], tasks: Sequence[Task]) -> list[Task]:
    """Tasks that have scores but no entry among ``tasks``: printed under their plain name."""
    known = {(task.name, task.group) for task in tasks}
    missing = dict.fromkeys((s.task, s.group) for s in scores if s.task != AVERAGE)
    return [
        Task(name, name, group, "", "") for name, group in missing if (name, group) not in known
    ]


def _setting_order(setting: Setting) -> tuple[int, bool, int, Setting]:
    codes = list(LANGUAGES)
    place = codes.index(setting.language) if setting.language in codes else len(codes)
    return place, setting.scoring != "letter", setting.shots, setting
