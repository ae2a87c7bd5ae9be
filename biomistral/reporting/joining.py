"""Several runs in one report: names that tell them apart, and all of their material as one.

Pure. A name that stands for different things in two runs gets the run behind it; what two runs share,
to the fingerprint, is shown once. Averages of baselines are kept only where they are over all tasks
that the runs have, for the average over fewer is of something else.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

from biomistral.records import Score, Task
from biomistral.reporting.document import Material
from biomistral.reporting.results import AVERAGE, Results, index_results
from biomistral.reporting.run_tables import Artefact
from biomistral.reporting.samples import NUM_SAMPLES, Sample
from biomistral.reporting.tables import Column, Row, Table, count_cell, text_cell

Names = Mapping[str, str]  # name in the run -> name in the report
_MODELS = ("model", "first", "second", "other")  # fields of records that name a model
# What of an evaluation's settings changes what a model is asked, and how the tables call it.
_WAYS = {
    "template": "Template",
    "prompt_language": "Language of prompts",
    "examples": "Examples",
    "example_language": "Language of examples",
    "permutations": "Orders of choices",
    "seeds": "Seeds",
    "long_prompts": "Long prompts",
    "precision": "Precision",
}
_Item = TypeVar("_Item")


def shown_names(runs: Mapping[str, Mapping[str, Mapping[str, str]]]) -> dict[str, Names]:
    """Name what the runs have: for each run, each name with the kinds and fingerprints behind it.

    A name means the same in two runs if no kind that both have differs.
    """
    fingerprints: dict[str, dict[str, set[str]]] = {}
    for things in runs.values():
        for name, marks in things.items():
            for kind, mark in marks.items():
                fingerprints.setdefault(name, {}).setdefault(kind, set()).add(mark)
    torn = {name for name, kinds in fingerprints.items() if any(len(m) > 1 for m in kinds.values())}
    return {
        run: {name: f"{name} ({run})" if name in torn else name for name in things}
        for run, things in runs.items()
    }


def join(materials: Mapping[str, Material], names: Mapping[str, Names]) -> Material:
    """Put the material of several runs together; of one run, return it as it is."""
    if len(materials) == 1:
        return next(iter(materials.values()))
    parts = [_renamed(run, material, names[run]) for run, material in materials.items()]
    return Material(
        results=_results(parts),
        reliability=_first_of(
            (r for part in parts for r in part.reliability),
            lambda r: (r.model, r.task, r.group, r.language, r.scoring, r.low, r.calibration),
        ),
        coverage=_first_of(
            (c for part in parts for c in part.coverage),
            lambda c: (c.model, c.task, c.group, c.language, c.scoring, c.shots, c.coverage),
        ),
        comparisons=_first_of(
            (c for part in parts for c in part.comparisons),
            lambda c: (c.first, c.second, c.task, c.group, c.language, c.scoring, c.shots),
        ),
        gaps=_first_of(
            (g for part in parts for g in part.gaps),
            lambda g: (g.model, g.task, g.group, g.language, g.scoring, g.shots),
        ),
        models=_first_of((a for part in parts for a in part.models), _identity),
        corpora=_first_of((a for part in parts for a in part.corpora), _identity),
        others=_first_of((a for part in parts for a in part.others), _identity),
        costs=_first_of((c for part in parts for c in part.costs), lambda c: c["model"]),
        logs=_first_named(part.logs for part in parts),
        samples=_samples([sample for part in parts for sample in part.samples]),
        overlaps=_first_named(part.overlaps for part in parts),
        distances=_first_named(part.distances for part in parts),
        throughputs=_first_named(part.throughputs for part in parts),
        runs=runs_table(materials),
    )


def runs_table(materials: Mapping[str, Material]) -> Table:
    """One row per run: what it has, and how questions were put where the runs differ in that."""
    ways = {run: _ways(material) for run, material in materials.items()}
    differing = [key for key in _WAYS if len({way[key] for way in ways.values() if key in way}) > 1]
    rows = tuple(
        Row(
            run,
            (
                *(count_cell(number or None) for number in _sizes(material)),
                *(text_cell(ways[run].get(key, "")) for key in differing),
            ),
        )
        for run, material in materials.items()
    )
    return Table(
        id="runs",
        title="Runs",
        head="Run",
        columns=(
            *(Column(title) for title in ("Models", "Tasks", "Languages", "Questions")),
            *(Column(_WAYS[key], is_text=True) for key in differing),
        ),
        rows=rows,
        note="Tests and intervals between models are of one run each; models of different runs were not "
        "tested against each other. A dash: the run does not have it (yet).",
    )


def _sizes(material: Material) -> tuple[int, int, int, int]:
    """Numbers of evaluated models, tasks, languages and questions."""
    results = material.results
    asked = [(task, code) for task in results.tasks for code in results.languages]
    models = [name for name in results.models if results.kinds[name] != "baseline"]
    tasks = {task.name for task, code in asked if results.num_questions(task, code)}
    questions = sum(results.num_questions(task, code) or 0 for task, code in asked)
    return len(models), len(tasks), len(results.languages), questions


def _ways(material: Material) -> dict[str, str]:
    """How the questions of a run were put, as the manifests of its predictions say it."""
    found: dict[str, dict[str, None]] = {}
    for artefact in material.others:
        settings = (artefact.manifest or {}).get("settings") or {}
        if artefact.role == "predictions":
            for key in _WAYS.keys() & settings.keys():
                value = settings[key]
                text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
                found.setdefault(key, {})[text] = None
    return {key: "; ".join(values) for key, values in found.items()}


def _renamed(run: str, material: Material, names: Names) -> Material:
    """The material of one run under the names of the report."""
    results = replace(
        material.results,
        measured=_records(material.results.measured, names),
        models=tuple(names.get(name, name) for name in material.results.models),
    )
    samples = [replace(s, answers=_records(s.answers, names)) for s in material.samples]
    distances = _keyed(material.distances, names)
    return replace(
        material,
        results=results,
        reliability=_records(material.reliability, names),
        coverage=_records(material.coverage, names),
        comparisons=_records(material.comparisons, names),
        gaps=_records(material.gaps, names),
        models=_artefacts(run, material.models, names),
        corpora=_artefacts(run, material.corpora, names),
        others=_artefacts(run, material.others, names),
        costs=[{**c, "model": names.get(c["model"], c["model"])} for c in material.costs],
        logs=_keyed(material.logs, names),
        throughputs=_keyed(material.throughputs, names),
        samples=samples,
        overlaps=_keyed(material.overlaps, names),
        distances={name: _records(rows, names) for name, rows in distances.items()},
    )


def _records(records: Iterable[_Item], names: Names) -> tuple[_Item, ...]:
    """Rename the models in records."""
    found = []
    for record in records:
        item: Any = record
        own = {f.name for f in fields(item)}.intersection(_MODELS)
        new = {f: names.get(getattr(item, f), getattr(item, f)) for f in own}
        found.append(replace(item, **new))
    return tuple(found)


def _keyed(values: Mapping[str, _Item], names: Names) -> dict[str, _Item]:
    return {names.get(name, name): value for name, value in values.items()}


def _artefacts(run: str, artefacts: Iterable[Artefact], names: Names) -> list[Artefact]:
    """Rename artefacts; questions, scores and costs have one name in every run and get the run's."""
    return [
        replace(
            artefact,
            name=names.get(artefact.name, f"{artefact.name} ({run})"),
            run=run,
            own_name=artefact.name,
            manifest=_renamed_manifest(artefact.manifest, names),
        )
        for artefact in artefacts
    ]


def _identity(artefact: Artefact) -> tuple[str, str]:
    return artefact.role, artefact.name


def _renamed_manifest(manifest: Mapping[str, Any] | None, names: Names) -> dict[str, Any] | None:
    """Rename the models that settings speak of, for the report reads from there what was made of what."""
    if manifest is None:
        return None
    settings = dict(manifest.get("settings") or {})
    for key in ("model", "base"):
        if isinstance(settings.get(key), str):
            settings[key] = names.get(settings[key], settings[key])
    parts = settings.get("models")
    if isinstance(parts, list):
        settings["models"] = [_renamed_part(part, names) for part in parts]
    return {**manifest, "settings": settings}


def _renamed_part(part: Any, names: Names) -> Any:
    if isinstance(part, Mapping) and isinstance(part.get("model"), str):
        return {**part, "model": names.get(part["model"], part["model"])}
    return names.get(part, part) if isinstance(part, str) else part


def _results(parts: Sequence[Material]) -> Results:
    tasks = united_tasks(task for part in parts for task in part.results.tasks)
    models = [model for part in parts for model in part.results.models]
    scores = _first_of(
        _comparable_baselines(parts),
        lambda s: (_where(s), s.model, s.task, s.metric),
    )
    return index_results(scores, tasks, list(dict.fromkeys(models)))


def _comparable_baselines(parts: Sequence[Material]) -> list[Score]:
    """All scores, without averages of baselines over fewer tasks than all runs have together."""
    asked = [_asked(part.results.measured) for part in parts]
    every: dict[Any, set[str]] = {}
    for found in asked:
        for key, tasks in found.items():
            every.setdefault(key, set()).update(tasks)
    return [
        score
        for part, found in zip(parts, asked, strict=True)
        for score in part.results.measured
        if score.model_kind != "baseline"
        or score.task != AVERAGE
        or found.get(_where(score)) == every.get(_where(score))
    ]


def _asked(scores: Iterable[Score]) -> dict[Any, set[str]]:
    found: dict[Any, set[str]] = {}
    for score in scores:
        if score.metric == "accuracy" and score.task != AVERAGE:
            found.setdefault(_where(score), set()).add(score.task)
    return found


def _where(score: Score) -> tuple[str, str, int, str]:
    return score.language, score.scoring, score.shots, score.group


def _samples(samples: Sequence[Sample]) -> list[Sample]:
    """The same questions with the answers of all runs."""
    found: dict[Any, Sample] = {}
    for sample in samples:
        question = sample.question
        key = (question.language, question.task, question.id)
        earlier = found[key].answers if key in found else ()
        answers = _first_of((*earlier, *sample.answers), lambda answer: answer.model)
        found[key] = replace(sample, answers=tuple(answers))
    return list(found.values())[:NUM_SAMPLES]


def _first_of(items: Iterable[_Item], key: Callable[[_Item], Hashable]) -> list[_Item]:
    """The first of the items with each key: what runs share is shown as the first run has it."""
    found: dict[Hashable, _Item] = {}
    for item in items:
        found.setdefault(key(item), item)
    return list(found.values())


def _first_named(mappings: Iterable[Mapping[str, _Item]]) -> dict[str, _Item]:
    found: dict[str, _Item] = {}
    for mapping in mappings:
        for name, value in mapping.items():
            found.setdefault(name, value)
    return found


def contradiction(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """Say what differs between the questions of a task in two runs (by id); empty if nothing does."""
    for id_ in [*first, *second]:
        if first.get(id_) != second.get(id_):
            missing = " is in one of them only" if id_ not in first or id_ not in second else ""
            return f"question {id_!r}{missing or ' differs'}"
    return ""


def united_tasks(tasks: Iterable[Task]) -> list[Task]:
    """Tasks of several runs, each once, as it was described first."""
    return _first_of(tasks, lambda task: (task.name, task.group))
