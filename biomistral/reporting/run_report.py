"""Make the report of a run: read artefacts, write one folder of HTML, Markdown, LaTeX and CSV.

The edge of this room: everything that touches a disk is here. The report holds no date, duration
or absolute path, so the same artefacts give the same bytes; only measured costs, where a recipe asks
for them, differ from run to run.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any, Literal, get_args

from biomistral import artifacts
from biomistral.artifacts import Origin
from biomistral.errors import InputError
from biomistral.models.cards import Card, read_card, render_card
from biomistral.records import (
    Comparison,
    CoveragePoint,
    LanguageGap,
    LayerDistance,
    Record,
    ReliabilityBin,
    Score,
    Task,
    TaskOverlap,
    read_records,
)
from biomistral.reporting.browser import Texts, may_show
from biomistral.reporting.browser_files import PAGE, check_questions, write_browser
from biomistral.reporting.charts import Chart, pdf_file, svg_file
from biomistral.reporting.document import Document, Material, compose
from biomistral.reporting.inputs import Inputs, inputs_of_run, named_runs
from biomistral.reporting.joining import Names, join, shown_names
from biomistral.reporting.render import (
    render_html,
    render_latex,
    render_markdown,
    table_csv,
    table_markdown,
)
from biomistral.reporting.results import Results, index_results
from biomistral.reporting.run_tables import Artefact, LogLine
from biomistral.reporting.sample_files import read_samples
from biomistral.reporting.score_tables import model_table
from biomistral.reporting.tables import unique_names
from biomistral.reporting.translations import read_totals, write_page

TRAINING_LOG = "training_log.jsonl"
COSTS = "costs.volatile.json"
THROUGHPUT = "throughput.volatile.json"
FIGURES = "figures"  # folder beside the page


def report(
    out: Path,
    *,
    title: str,
    scores: Path,
    questions: Path,
    models: Mapping[str, Path],
    corpora: Mapping[str, Path],
    predictions: Mapping[str, Path],
    overlaps: Mapping[str, Path] | None = None,
    costs: Path | None = None,
    adapters: Mapping[str, Path] | None = None,
    texts: Texts = "open",
    distances: Mapping[str, Path] | None = None,
    translations: Mapping[str, tuple[Path, Path]] | None = None,
    origin: Origin | None = None,
) -> Path:
    """Write the report of a run to ``out`` and return it.

    ``scores`` and ``questions`` are folders of those kinds. ``models``, ``corpora`` and
    ``predictions`` map names to folders, in the order to print; a model may be any checkpoint or a
    folder that is not there (a hub id), and then says less about itself. ``overlaps`` are folders of
    what was found of the questions in each corpus, ``costs`` a folder of measured costs.
    ``adapters`` are those that were merged into models of the same names, or stand alone: their
    training is shown. ``distances`` are folders of how far models are from those they were made
    from, ``translations`` folders of translated questions, each with one of its measured quality.
    ``texts`` says of which questions the texts are shown: those under a licence
    that lets anybody pass them on, all, or none.

    Makes ``index.html``, ``questions.html`` with its data in ``questions/*.js``, ``report.md``,
    ``report.tex``, ``tables/*.csv``, ``figures/*.svg`` and ``*.pdf``, and ``cards/*.md``.
    Raises ``InputError`` if scores or questions cannot be read.
    """
    inputs = Inputs(
        scores=scores,
        questions=questions,
        models=models,
        corpora=corpora,
        predictions=predictions,
        overlaps=overlaps or {},
        adapters=adapters or {},
        distances=distances or {},
        translations=translations or {},
        costs=costs,
    )
    return _make(out, title, {"": inputs}, texts, origin)


def report_runs(
    out: Path, runs: Sequence[Path], *, title: str | None = None, texts: Texts = "open"
) -> Path:
    """Write one report of one or several runs to ``out`` and return it.

    What a run lacks is left out; what two runs share is shown once, and names that stand for
    different things have the run behind them. Raises ``InputError`` if a folder is no run, or if two
    runs put different questions under the same name.
    """
    named = named_runs(runs)
    inputs = {name: inputs_of_run(run) for name, run in named.items()}
    check_questions({name: i.questions for name, i in inputs.items() if i.questions})
    return _make(out, title or " and ".join(named), inputs, texts, None)


def _make(
    out: Path, title: str, runs: Mapping[str, Inputs], texts: Texts, origin: Origin | None
) -> Path:
    names = shown_names({run: _identities(inputs) for run, inputs in runs.items()})
    material = join({run: _read(inputs, texts, out) for run, inputs in runs.items()}, names)
    predictions = _by_shown_name(runs, names, "predictions")
    models = _by_shown_name(runs, names, "models")
    document = compose(title, material)
    origin = origin or _origin(out, {"title": title, "texts": texts}, runs)
    with artifacts.create(out, origin) as draft:
        num_questions = write_browser(
            draft.folder,
            title=title,
            questions=[i.questions for i in runs.values() if i.questions],
            predictions=predictions,
            tasks=material.results.tasks,
            languages=material.results.languages,
            texts=texts,
        )
        page = render_html(document, figures=FIGURES, browser=PAGE if num_questions else "")
        _write_text(draft.folder / "index.html", page)
        _write_text(draft.folder / "report.md", render_markdown(document))
        _write_text(draft.folder / "report.tex", render_latex(document))
        _write_tables(draft.folder / "tables", document, material.results)
        _write_figures(draft.folder / FIGURES, document.charts)
        for inputs in runs.values():
            _write_translations(draft.folder, inputs.translations, material, texts)
        _write_cards(draft.folder / "cards", models, material.results)
        if material.costs:
            draft.not_deterministic = "shows times that were measured"
        draft.counts["tables"] = len(document.tables)
        draft.counts["figures"] = len(document.charts)
        draft.counts["cards"] = len(models)
        draft.counts["questions"] = num_questions
    return out


def _identities(inputs: Inputs) -> dict[str, dict[str, str]]:
    """For each name in a run, the kinds and fingerprints of the artefacts that have it."""
    found: dict[str, dict[str, str]] = {}
    for role, name, folder in inputs.labelled():
        if role not in {"questions", "scores"}:
            manifest = artifacts.read_manifest(folder) or {}
            found.setdefault(name, {})[role] = str(manifest.get("fingerprint", folder))
    return found


def _by_shown_name(
    runs: Mapping[str, Inputs], names: Mapping[str, Names], kind: Literal["predictions", "models"]
) -> dict[str, Path]:
    """Folders of one kind by the names of the report; of what runs share, those of the first."""
    found: dict[str, Path] = {}
    for run, inputs in runs.items():
        for name, folder in getattr(inputs, kind).items():
            found.setdefault(names[run][name], folder)
    return found


def _origin(out: Path, settings: Mapping[str, str], runs: Mapping[str, Inputs]) -> Origin:
    fingerprints = {
        f"{run}: {role}: {name}".removeprefix(": "): artifacts.fingerprint_of_files([path])
        for run, inputs in runs.items()
        for role, name, path in inputs.labelled()
        if path.exists()
    }
    return Origin("report", out.name, settings, fingerprints)


def _read(inputs: Inputs, texts: Texts, out: Path) -> Material:
    found = [_artefact(*labelled, out) for labelled in inputs.labelled()]
    order = [*inputs.predictions, *inputs.models]
    tasks = _records(inputs.questions, "tasks.parquet", Task)
    scores = _records(inputs.scores, "scores.parquet", Score)
    results = index_results(scores, tasks, list(dict.fromkeys(order)))
    return Material(
        results=results,
        reliability=_if_there(inputs.scores, "reliability.parquet", ReliabilityBin),
        coverage=_if_there(inputs.scores, "coverage.parquet", CoveragePoint),
        comparisons=_if_there(inputs.scores, "comparisons.parquet", Comparison),
        gaps=_if_there(inputs.scores, "languages.parquet", LanguageGap),
        models=[a for a in found if a.role == "model"],
        corpora=[a for a in found if a.role == "corpus"],
        others=[a for a in found if a.role not in {"model", "corpus"}],
        costs=_costs(inputs.costs),
        logs=_logs({**inputs.models, **inputs.adapters}),
        # Clocks differ: only where others are shown already.
        throughputs=_throughputs({**inputs.models, **inputs.adapters}) if inputs.costs else {},
        samples=read_samples(
            inputs.questions,
            inputs.predictions,
            results,
            [t for t in tasks if may_show(t.licence, texts)],
        )
        if inputs.questions
        else [],
        overlaps={
            name: _if_there(folder, "overlap.parquet", TaskOverlap)
            for name, folder in inputs.overlaps.items()
        },
        translations={name: read_totals(q) for name, (_, q) in inputs.translations.items()},
        translation_pages={
            name: f"translations/{stem}.html"
            for name, stem in unique_names(list(inputs.translations)).items()
        },
        distances={
            name: _if_there(folder, "distances.parquet", LayerDistance)
            for name, folder in inputs.distances.items()
        },
    )


def _costs(folder: Path | None) -> list[Any]:
    if folder is None:
        return []
    path = folder / COSTS
    try:
        costs = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); measure the costs again") from None
    return costs if isinstance(costs, list) else []


def _records(folder: Path | None, name: str, kind: type[Record]) -> list[Record]:
    return list(read_records(folder / name, kind)) if folder else []


def _if_there(folder: Path | None, name: str, kind: type[Record]) -> list[Record]:
    return _records(folder if folder and (folder / name).exists() else None, name, kind)


def _artefact(role: str, name: str, folder: Path, out: Path) -> Artefact:
    """Describe one input. Manifest, timings and calibration do not count: they come later or differ from run to run."""
    if not folder.is_dir():
        return Artefact(role, name, None, None)
    size = sum(
        path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and not artifacts.is_note(path.name)
    )
    return Artefact(role, name, artifacts.read_manifest(folder), size, _place(folder, out))


def _place(folder: Path, out: Path) -> str:
    """Where an artefact of the same run lies as seen from the report; the same in every run."""
    folder, run = folder.resolve(), out.resolve().parent.parent
    is_in_run = folder.parent.parent == run and folder.parent.name in get_args(artifacts.Kind)
    return f"../../{folder.parent.name}/{folder.name}" if is_in_run else ""


def _logs(models: Mapping[str, Path]) -> dict[str, list[LogLine]]:
    paths = {name: folder / TRAINING_LOG for name, folder in models.items()}
    return {name: list(_log_lines(path)) for name, path in paths.items() if path.is_file()}


def _throughputs(models: Mapping[str, Path]) -> dict[str, dict[str, float]]:
    paths = {name: folder / THROUGHPUT for name, folder in models.items()}
    found: dict[str, dict[str, float]] = {}
    for name, path in paths.items():
        if path.is_file():
            try:
                values = json.loads(path.read_text(encoding="utf-8"))
                found[name] = {key: float(value) for key, value in values.items()}
            except (ValueError, TypeError, AttributeError) as error:
                raise InputError(
                    f"{path}: says no speed of training ({error!r}); wanted is a JSON object of "
                    "numbers. Remove it: nothing else depends on it"
                ) from None
    return found


def _log_lines(path: Path) -> Iterator[LogLine]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            values = json.loads(line)
            yield LogLine(
                step=int(values["step"]),
                tokens=int(values["tokens"]),
                loss=values.get("loss"),
                learning_rate=values.get("learning_rate"),
                held_out_loss=values.get("held_out_loss") or {},
                held_out_by_language=values.get("held_out_loss_by_language") or {},
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"{path}, line {number}: is no line of a training log ({error!r}); wanted is a "
                'JSON object with "step", "tokens", "loss" and "learning_rate"'
            ) from None


def _write_tables(folder: Path, document: Document, results: Results) -> None:
    """Write every printed table, and all scores as they were measured (fractions)."""
    folder.mkdir()
    for table in document.tables:
        if table.rows:
            _write_text(folder / f"{table.id}.csv", table_csv(table))
    with (folder / "scores.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(f.name for f in fields(Score))
        writer.writerows(astuple(score) for score in results.measured)


def _write_figures(folder: Path, charts: Sequence[Chart]) -> None:
    """Write every figure as SVG and as PDF, to be put into a paper."""
    folder.mkdir()
    for chart in charts:
        _write_text(folder / f"{chart.id}.svg", svg_file(chart))
        (folder / f"{chart.id}.pdf").write_bytes(pdf_file(chart))


def _write_translations(
    folder: Path, found: Mapping[str, tuple[Path, Path]], material: Material, texts: Texts
) -> None:
    """Write a page for each set of translations, with texts that may be shown."""
    licences = {task.name: task.licence for task in material.results.tasks}
    for name, (translations, quality) in found.items():
        page = folder / material.translation_pages[name]
        page.parent.mkdir(exist_ok=True)
        write_page(
            translations, quality, page, lambda task: may_show(licences.get(task, ""), texts)
        )


def _write_cards(folder: Path, models: Mapping[str, Path], results: Results) -> None:
    """Write the card of every model of the run, now with its results."""
    folder.mkdir()
    for name, stem in unique_names(list(models)).items():
        card = read_card(models[name]) or Card(
            name=name,
            base_models=(),
            relation=None,
            description="A model this run was given. Its own card says where it comes from.",
        )
        text = render_card(card, card_results(name, results) or "Not measured in this run.")
        _write_text(folder / f"{stem}.md", text)


def card_results(model: str, results: Results) -> str:
    """Return the tables of one model as Markdown, for its card; empty if it was not measured."""
    protocols = dict.fromkeys((s.scoring, s.shots) for s in results.settings)
    tables = [model_table(results, model, *protocol) for protocol in protocols]
    return "\n\n".join(
        f"{table.title}. {table.note}\n\n{table_markdown(table)}" for table in tables if table.rows
    )


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
