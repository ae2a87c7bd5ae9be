"""What ``biomistral evaluate`` and its commands do and show.

An evaluation is a recipe without training: it is made here from the options, run by the pipeline
and written beside its results, so ``biomistral run`` can repeat it. Knows how things look on a
terminal, nothing about how answers come about.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
import yaml
from rich.console import Console
from rich.table import Table

from biomistral.advisory import ADVISORY
from biomistral.cli.evaluated_models import plain_name, sources
from biomistral.errors import InputError
from biomistral.languages import LANGUAGES

if TYPE_CHECKING:
    from biomistral.recipe.settings import EvaluateSettings, Recipe
    from biomistral.records import Request
    from biomistral.reporting.results import Results, Setting

_NO_MODEL = "model"  # stands in recipes that only build prompts


@dataclass(frozen=True)
class Way:
    """Options of ``biomistral evaluate`` alone: how models are run, and what is made."""

    precision: str = "bfloat16"
    engine: str = "own"
    run: Path | None = None
    api: Sequence[str] = ()
    report: bool = False
    yes: bool = False


@dataclass(frozen=True)
class Asked:
    """Options of all commands that build prompts, as they were written."""

    data: str
    tasks: str
    languages: str
    shots: int
    seeds: str
    scoring: str
    limit: int | None
    template: str | None
    translations: Sequence[str] = ()


def run(
    models: Sequence[str], out: Path, asked: Asked, way: Way, *, changes: Sequence[str]
) -> None:
    """Evaluate models and print a table for each language and scoring."""
    from biomistral.cli.running import execute
    from biomistral.pipeline import plan, select

    name = plain_name(out)
    recipe = recipe_of(asked, sources(models, way.run, way.api), changes, name=name, way=way)
    console = Console(highlight=False, markup=False)
    if not _confirm_costs(console, recipe, out, yes=way.yes):
        return
    steps = select(plan(recipe, out), ["report" if way.report else "scores"])
    execute(console, recipe, out, steps)
    _show_scores(console, out, [*recipe.models])
    if way.report:
        console.print(f"Report: {out / 'report/report/index.html'}", soft_wrap=True)
    console.print(ADVISORY, style="dim")


def _confirm_costs(console: Console, recipe: Recipe, out: Path, *, yes: bool) -> bool:
    """Say what served models will be asked; whether the person wants that."""
    from biomistral.cli.running import show_costs

    num_requests = show_costs(console, recipe, out)
    if yes or not num_requests:
        return True
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InputError(
            f"evaluate: {num_requests:,} requests are to be sent, and nobody is there to be asked; "
            "say --yes to send them"
        )
    return typer.confirm("Send them?")


def show(asked: Asked, *, number: int, changes: Sequence[str], model: str | None = None) -> None:
    """Print one question as a model is given it."""
    from biomistral.benchmark import show_question

    recipe = recipe_of(asked, {}, changes, name="show")
    assert recipe.evaluate is not None, "was just given"
    render = _render(recipe.evaluate, model)
    typer.echo(show_question(recipe.benchmark, recipe.evaluate, number=number, render=render))


def export_lm_eval(
    folder: Path, asked: Asked, *, changes: Sequence[str], model: str | None = None
) -> None:
    """Write tasks for lm-evaluation-harness and say how to run them."""
    from biomistral.evaluation.lm_eval import TAG, export_tasks

    names = export_tasks(_requests(asked, changes, model), folder)
    for name in names:
        typer.echo(name)
    typer.echo(
        f"{folder}: {len(names)} tasks; run lm_eval --include_path {folder} --tasks {TAG} "
        "--log_samples --output_path ... and read its answers with biomistral evaluate import"
    )


def import_lm_eval(
    files: Sequence[Path], out: Path, *, name: str, task: str | None, language: str, shots: int
) -> None:
    """Read sample files as the predictions of a model."""
    from biomistral.artifacts import read_manifest
    from biomistral.evaluation.lm_eval_samples import Names, import_samples

    import_samples(files, out, name=name, names=Names(task, language, shots))
    counts = (read_manifest(out) or {})["counts"]
    typer.echo(f"{out}: {counts['predictions']} predictions of {name}")


# --- from options to a recipe ---------------------------------------------------------------------


def recipe_of(
    asked: Asked,
    models: Mapping[str, Mapping[str, Any]],
    changes: Sequence[str],
    *,
    name: str,
    way: Way | None = None,
) -> Recipe:
    """Make the recipe that the options mean; raises ``RecipeError`` for what they may not be."""
    from biomistral.recipe import parse_recipe

    way = way or Way()
    models = models or {_NO_MODEL: {"path": "a/b"}}
    tasks = _words(asked.tasks)
    evaluate: dict[str, Any] = {
        "models": list(models),
        "tasks": "all" if tasks == ["all"] else tasks,
        "languages": _languages(asked, tasks),
        "shots": asked.shots,
        "seeds": [int(word) if word.isdigit() else word for word in _words(asked.seeds)],
        "scoring": _words(asked.scoring),
        "limit": asked.limit,
        "precision": way.precision,
        "engine": way.engine,
        **({"template": asked.template} if asked.template else {}),
    }
    value = {
        "name": name,
        "models": {key: dict(source) for key, source in models.items()},
        "benchmark": {"data": asked.data, "translations": list(asked.translations)},
        "evaluate": evaluate,
    }
    text = yaml.safe_dump(value, allow_unicode=True, sort_keys=False)
    paths = [f"evaluate.{change}" for change in changes]
    return parse_recipe(text, source="evaluate", changes=paths, environment={})


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _languages(asked: Asked, tasks: Sequence[str]) -> list[str]:
    """Codes asked for; all: those that any of the tasks has questions in."""
    from biomistral.benchmark.catalogue import read_catalogue

    if not Path(asked.data).is_dir():
        raise InputError(_where_to_get(asked.data))
    if _words(asked.languages) != ["all"]:
        return _words(asked.languages)
    catalogue = read_catalogue(asked.data, (), asked.translations)
    names = list(catalogue.tasks) if list(tasks) == ["all"] else tasks
    there = {code for name in names for code in catalogue.languages_of(name)}
    return [code for code in LANGUAGES if code in there] or ["en"]


def _where_to_get(data: str) -> str:
    """Say which files to put into the data folder, and where they are published."""
    from biomistral.benchmark.tasks import TASKS

    by_source: dict[str, list[str]] = {}
    for task in TASKS.values():
        by_source.setdefault(task.source, []).append(task.name)
    lines = "".join(f"\n  {source}: {', '.join(names)}" for source, names in by_source.items())
    return (
        f"--data {data}: there is no such folder; nothing is downloaded. Put the published files "
        "(docs/benchmark.md says under which names they are looked for) into one folder and name "
        f"it with --data:{lines}"
    )


def _requests(asked: Asked, changes: Sequence[str], model: str | None) -> list[Request]:
    """Build all prompts that the options ask for, in a folder that goes away."""
    import tempfile

    from biomistral.benchmark import build_requests, load_questions
    from biomistral.pipeline.making import shots_needed
    from biomistral.records import Question, read_records

    recipe = recipe_of(asked, {}, changes, name="export")
    settings = recipe.evaluate
    assert settings is not None, "was just given"
    with tempfile.TemporaryDirectory() as folder:
        questions = load_questions(
            recipe.benchmark,
            settings.tasks,
            settings.languages,
            Path(folder) / "questions",
            limit=settings.limit,
            shots_needed=shots_needed(settings),
        )
        asked_here = list(read_records(questions / "questions.parquet", Question))
        return build_requests(asked_here, settings, _render(settings, model))


def _render(settings: EvaluateSettings, model: str | None) -> Callable[[str], str] | None:
    """How a message becomes a prompt, where prompts are messages."""
    from biomistral.models.chat import message_renderer

    if settings.template != "chat":
        return None
    if model is None:
        raise InputError("--template chat: say whose chat template it is, with --model FOLDER")
    return message_renderer(model)


# --- what was found -------------------------------------------------------------------------------


def _show_scores(console: Console, out: Path, models: Sequence[str]) -> None:
    """Print accuracy by task and the calibration error, models before baselines."""
    from biomistral.records import Score, Task, read_records
    from biomistral.reporting.results import index_results

    scores = read_records(out / "scores/scores/scores.parquet", Score)
    tasks = list(read_records(out / "questions/benchmark/tasks.parquet", Task))
    results = index_results(scores, tasks, models)
    for setting in results.settings:
        for group in results.groups:
            if results.tasks_of(group, setting):
                console.print(_table(results, group, setting))


def _table(results: Results, group: str, setting: Setting) -> Table:
    """Tasks down, models across: a screen is longer than wide."""
    from biomistral.reporting.results import average_of
    from biomistral.reporting.score_tables import accuracy_table
    from biomistral.reporting.tables import score_cell

    found = accuracy_table(results, group, setting)
    tasks = results.tasks_of(group, setting)
    whole = average_of(group) if len(tasks) > 1 else tasks[0]
    table = Table(title=found.title, title_justify="left", caption=found.note)
    table.add_column("Accuracy, %", overflow="fold")
    for row in found.rows:
        table.add_column(row.label, justify="right", overflow="fold")
    for index, column in enumerate(found.columns):
        if index == len(tasks):
            table.add_section()  # before the average
        cells = [row.cells[index] for row in found.rows]
        table.add_row(column.title, *(f"{cell.text} {cell.spread}".strip() for cell in cells))
    table.add_section()
    errors = [results.find(setting, row.label, whole, "ece") for row in found.rows]
    table.add_row("ECE, %", *(score_cell(error).text for error in errors))
    return table
