"""From the benchmark to translation: the English questions of some tasks.

Translation is no step of a recipe: it is done once, looked at by people, and then named as data
(``benchmark.translations``) by the recipes that evaluate on it.
"""

from __future__ import annotations

from biomistral.benchmark.catalogue import choose, read_catalogue
from biomistral.benchmark.questions import questions_of
from biomistral.benchmark.selection import evenly_spaced
from biomistral.recipe.settings import BenchmarkSettings
from biomistral.recipe.translating import SOURCE_LANGUAGE, TranslateSettings
from biomistral.records import Question, Task


def english_questions(
    benchmark: BenchmarkSettings, settings: TranslateSettings
) -> dict[Task, list[Question]]:
    """Return the test questions of each task, and of the others as many examples as are asked for.

    Both evenly spaced over their files. Raises ``InputError`` if a task has no questions in English.
    """
    catalogue = read_catalogue(benchmark.data, benchmark.hub)
    choice = choose(catalogue, settings.tasks, [SOURCE_LANGUAGE])
    found: dict[Task, list[Question]] = {}
    for name in choice.languages:
        questions = questions_of(catalogue, name, [SOURCE_LANGUAGE], settings.limit, 0)
        tests = [question for question in questions if question.split == "test"]
        others = [question for question in questions if question.split != "test"]
        found[catalogue.tasks[name]] = [*tests, *evenly_spaced(others, settings.examples)]
    return found
