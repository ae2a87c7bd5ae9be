"""What ``biomistral compare`` reads and prints: predictions in, tables of models side by side out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from biomistral.artifacts import read_manifest
from biomistral.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from biomistral.records import Task
    from biomistral.reporting.results import Results
    from biomistral.reporting.tables import Table

PREDICTIONS = "predictions.parquet"
FORMATS = ("markdown", "latex", "csv")
_UNGROUPED = "all"


def compare(
    places: Sequence[str], *, form: str, out: Path | None, seed: int, resamples: int
) -> None:
    """Compare the models at ``places`` and print the tables, or write one file each into ``out``."""
    if form not in FORMATS:
        raise InputError(
            f"--format {form!r}: is no format{did_you_mean(form, FORMATS)}; allowed are "
            f"{', '.join(FORMATS)}"
        )
    found, run = find_predictions(places)
    tables = make_tables(found, _tasks(run), seed=seed, num_resamples=resamples)
    render, suffix = _renderer(form)
    if out is None:
        for table in tables:
            typer.echo(_heading(table, form) + render(table) + "\n" + _foot(table, form))
        return
    out.mkdir(parents=True, exist_ok=True)
    for table in tables:
        path = out / f"{table.id}.{suffix}"
        path.write_text(render(table).rstrip("\n") + "\n", encoding="utf-8", newline="\n")
        typer.echo(str(path))


def find_predictions(places: Sequence[str]) -> tuple[dict[str, Path], Path | None]:
    """Find the folder of each model's predictions, by name; and the run they come from, if one.

    A place is a file or folder of predictions, ``name=place``, or a run's folder: followed by
    names it means these models of the run, alone all of them. Raises ``InputError`` if a place
    holds no predictions, a name is not in the run or there twice, or fewer than two are left.
    """
    run, names = None, list(places)
    if names and (Path(names[0]) / "predictions").is_dir():
        run = Path(names.pop(0))
    there = {path.parent.name: path.parent for path in _files_of(run)}
    if run and not names:
        names = list(there)
    found: dict[str, Path] = {}
    for text in names:
        name, folder = (text, there[text]) if text in there else _place(text, run, there)
        if name in found:
            raise InputError(
                f"compare {text}: there are two models named {name!r}; write other-name={text}"
            )
        found[name] = folder
    if len(found) < 2:
        raise InputError(
            f"compare: names {len(found)} model{'' if len(found) == 1 else 's'}; wanted are two or "
            "more files or folders of predictions, or the folder of a run"
        )
    return found, run


def make_tables(
    found: Mapping[str, Path], tasks: Sequence[Task], *, seed: int, num_resamples: int
) -> list[Table]:
    """Read predictions and make, for each setting, the table of accuracies and that of pairs."""
    from biomistral.evaluation.columns import check_same_questions, read_cells
    from biomistral.evaluation.comparison import compare as compare_cells
    from biomistral.evaluation.score_rows import scores
    from biomistral.reporting.model_tables import in_setting, pairs_table
    from biomistral.reporting.results import AVERAGE, index_results
    from biomistral.reporting.score_tables import accuracy_table, describe
    from biomistral.reporting.tables import slug

    cells = {name: read_cells(folder, name) for name, folder in found.items()}
    check_same_questions(cells, partial=True)
    known = {task.name: task.group for task in tasks}
    answered = dict.fromkeys(key.task for by_key in cells.values() for key in by_key)
    groups = {task: known.get(task, _UNGROUPED) for task in answered}
    rows = scores(cells, groups, seed=seed, ensembles=())
    results: Results = index_results(rows, [t for t in tasks if t.name in groups], list(found))
    pairs = compare_cells(cells, groups, seed=seed, num_resamples=num_resamples)
    titles = {task.name: task.title for task in results.tasks} | {AVERAGE: "Average"}
    tables = []
    for setting in results.settings:
        for group in results.groups:
            if results.tasks_of(group, setting):
                tables.append(accuracy_table(results, group, setting))
            own = in_setting(pairs, results, group, setting)
            title = f"Models against models, {group} tasks: {describe(setting)}"
            if own:
                tables.append(
                    pairs_table(own, title, slug("pairs", group, *map(str, setting)), titles)
                )
    return tables


def _files_of(run: Path | None) -> list[Path]:
    """Predictions of a run in the order of its tables; others behind, by name."""
    if run is None:
        return []
    settings = (read_manifest(run / "scores/scores") or {}).get("settings") or {}
    order = {name: place for place, name in enumerate(settings.get("models") or [])}
    found = (run / "predictions").glob(f"*/{PREDICTIONS}")
    return sorted(found, key=lambda p: (order.get(p.parent.name, len(order)), p.parent.name))


def _place(text: str, run: Path | None, there: Mapping[str, Path]) -> tuple[str, Path]:
    """Name and folder of what is no model of the run: a path, perhaps with a name before it."""
    name, sign, rest = text.partition("=")
    path = Path(rest if sign and not Path(text).exists() else text)
    folder = path.parent if path.name == PREDICTIONS else path
    if (folder / PREDICTIONS).is_file():
        return (name if sign and path == Path(rest) else folder.resolve().name), folder
    if run:
        raise InputError(
            f"{run / 'predictions'}: has no model {text!r}{did_you_mean(text, there)}; there are "
            f"{', '.join(there) or 'none'}"
        )
    raise InputError(
        f"{path}: holds no {PREDICTIONS}; name what evaluating a model has written, or a run's "
        "folder and models of it"
    )


def _tasks(run: Path | None) -> list[Task]:
    """Titles and groups of tasks, as the run knows them."""
    from biomistral.records import Task, read_records

    path = run / "questions/benchmark/tasks.parquet" if run else None
    return list(read_records(path, Task)) if path and path.is_file() else []


def _renderer(form: str) -> tuple[Callable[[Any], str], str]:
    from biomistral.reporting import render

    return {
        "markdown": (render.table_markdown, "md"),
        "latex": (render.table_latex, "tex"),
        "csv": (render.table_csv, "csv"),
    }[form]


def _heading(table: Table, form: str) -> str:
    mark = {"markdown": "### ", "latex": "% ", "csv": "# "}[form]
    return f"{mark}{table.title}\n\n"


def _foot(table: Table, form: str) -> str:
    """The note under a table; a comment where the format has one."""
    marks = {"markdown": "best bold, second italic", "latex": "best bold, second underlined"}
    note = " ".join(
        [
            *([table.note] if table.note else []),
            *([f"Marks: {marks[form]}."] if table.is_marked and form in marks else []),
        ]
    )
    if not note or form == "csv":
        return ""
    return f"\n{'% ' if form == 'latex' else ''}{note}\n"
