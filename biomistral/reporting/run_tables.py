"""The tables about a run that are not scores: benchmark, corpora, training, provenance.

Pure functions of manifests (as dictionaries), tasks and training logs. Prints no duration, date or
absolute path: two reports on the same artefacts have the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from biomistral.reporting.results import Results
from biomistral.reporting.score_tables import language_name
from biomistral.reporting.tables import (
    DASH,
    Cell,
    Column,
    Row,
    Table,
    count_cell,
    number_cell,
    slug,
    text_cell,
)


@dataclass(frozen=True, slots=True)
class Artefact:
    """One input of the report: its name in the run, its manifest if it has one, and its size."""

    role: str  # model, corpus, predictions, questions, scores
    name: str
    manifest: Mapping[str, Any] | None
    num_bytes: int | None  # without manifest and timings; None if the folder is not there
    place: str = ""  # of its folder as seen from the report; empty outside of the same run
    run: str = ""  # that it is of, where there are several
    own_name: str = ""  # in that run

    @property
    def counts(self) -> Mapping[str, Any]:
        """What the step counted."""
        counts = (self.manifest or {}).get("counts")
        return counts if isinstance(counts, Mapping) else {}


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of ``training_log.jsonl``."""

    step: int
    tokens: int
    loss: float | None  # nats per token
    learning_rate: float | None
    held_out_loss: Mapping[str, float]  # corpus -> nats per token; empty where not measured
    # corpus -> language -> the same; of corpora in several languages
    held_out_by_language: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


# Corpus totals in the order of the work; others follow as they come.
_TOTALS = (
    "files read",
    "documents seen",
    "documents kept",
    "documents held out",
    "words",
    "tokens",
    "rows",
    "held out rows",
    "padding fraction",
)


def benchmark_table(results: Results) -> Table:
    """Tasks with their source, licence and number of questions answered in each language."""
    rows = []
    for task in results.tasks:
        counts = [count_cell(results.num_questions(task, code)) for code in results.languages]
        texts = [text_cell(text) for text in (task.group, task.source, task.licence, task.note)]
        rows.append(Row(task.title, (texts[0], *counts, *texts[1:])))
    names = [language_name(code) for code in results.languages]
    return Table(
        id="benchmark",
        title="Tasks and questions answered",
        head="Task",
        columns=(
            Column("Group", is_text=True),
            *(Column(name) for name in names),
            *(Column(title, is_text=True) for title in ("Source", "Licence", "Note")),
        ),
        rows=tuple(rows),
    )


def corpus_tables(corpora: Sequence[Artefact]) -> list[Table]:
    """One table of totals, and one for everything that was counted by some key."""
    totals: dict[str, dict[str, float]] = {}
    by_key: dict[str, dict[str, dict[str, float]]] = {}
    for corpus in corpora:
        for path, value in _numbers(corpus.counts):
            if len(path) == 1:
                totals.setdefault(_total_label(path[0]), {})[corpus.name] = value
            else:
                rows = by_key.setdefault(path[0], {})
                rows.setdefault(_label(path), {})[corpus.name] = value
    names = [corpus.name for corpus in corpora]
    place = {label: index for index, label in enumerate(_TOTALS)}
    totals = dict(sorted(totals.items(), key=lambda item: place.get(item[0], len(place))))
    tables = [_counts_table("Totals", totals, names)] if totals else []
    for key, values in by_key.items():
        ordered = sorted(values.items(), key=lambda item: (-sum(item[1].values()), item[0]))
        tables.append(_counts_table(_spaced(key).capitalize(), dict(ordered), names))
    return tables


def training_table(logs: Mapping[str, Sequence[LogLine]]) -> Table:
    """What each training run came to: steps, tokens, and loss at both ends."""
    corpora = list(dict.fromkeys(c for log in logs.values() for x in log for c in x.held_out_loss))
    rows = []
    for model, log in logs.items():
        losses = [line.loss for line in log if line.loss is not None]
        held_out = []
        for corpus in corpora:
            values = [x.held_out_loss[corpus] for x in log if corpus in x.held_out_loss]
            held_out += [_end(values, 0), _end(values, -1)]
        last = log[-1] if log else None
        steps = count_cell(last.step if last else None)
        tokens = count_cell(last.tokens if last else None)
        rows.append(Row(model, (steps, tokens, _end(losses, 0), _end(losses, -1), *held_out)))
    heads = ["Steps", "Tokens", "First loss", "Last loss"]
    heads += [f"Held-out {c}, {end}" for c in corpora for end in ("first", "last")]
    return Table(
        id="training",
        title="Training runs",
        head="Model",
        columns=tuple(Column(head) for head in heads),
        rows=tuple(rows),
        note="Loss in nats per token; of preference tuning, per pair.",
    )


def provenance_table(artefacts: Sequence[Artefact]) -> Table:
    """Every artefact with its fingerprint and what it was made from."""
    known = {a.manifest["fingerprint"]: a.name for a in artefacts if a.manifest}
    rows = []
    for artefact in artefacts:
        manifest = artefact.manifest or {}
        same = manifest.get("deterministic", "")
        cells = (
            text_cell(str(manifest.get("kind", artefact.role))),
            text_cell(str(manifest.get("fingerprint", ""))[:12]),
            text_cell(_made_from(manifest.get("inputs") or {}, known)),
            text_cell("yes" if same is True else str(same)),
            count_cell(artefact.num_bytes),
        )
        rows.append(Row(artefact.name, cells))
    texts = ("Kind", "Fingerprint", "Made from", "Same bytes when made again")
    return Table(
        id="provenance",
        title="Artefacts",
        head="Name",
        columns=(*(Column(title, is_text=True) for title in texts), Column("Bytes")),
        rows=tuple(rows),
        note="A fingerprint names settings and inputs (first 12 digits of its SHA-256). Artefacts "
        "without one were not made by this package.",
    )


def versions_table(artefacts: Iterable[Artefact]) -> Table:
    """Versions of the libraries that made the artefacts; several where they differ."""
    found: dict[str, dict[str, None]] = {}
    for artefact in artefacts:
        for name, version in ((artefact.manifest or {}).get("versions") or {}).items():
            found.setdefault(str(name), {})[str(version)] = None
    rows = [Row(name, (text_cell(", ".join(found[name])),)) for name in sorted(found)]
    return Table(
        "versions", "Made with", "Library", (Column("Version", is_text=True),), tuple(rows)
    )


def parents_of(models: Sequence[Artefact]) -> dict[str, str]:
    """For each model made from another one of the run, that other one.

    Read from the settings in the manifests: ``model`` of training and quantization, ``base`` of
    merges.
    """
    names = {model.name for model in models}
    parents = {}
    for model in models:
        settings = (model.manifest or {}).get("settings") or {}
        parent = settings.get("model", settings.get("base"))
        if isinstance(parent, str) and parent in names and parent != model.name:
            parents[model.name] = parent
    return parents


def makings_of(models: Sequence[Artefact]) -> dict[str, tuple[str, ...]]:
    """For each model made from others of the run, all of them; only merges have several.

    Read like ``parents_of``, and from ``models`` of merges.
    """
    names = {model.name for model in models}
    found = {}
    for model in models:
        settings = (model.manifest or {}).get("settings") or {}
        merged = settings.get("models")
        parts = merged if isinstance(merged, list) else []
        made = [settings.get("model"), settings.get("base")]
        made += [part.get("model") for part in parts if isinstance(part, Mapping)]
        own = tuple(dict.fromkeys(n for n in made if isinstance(n, str)))
        found[model.name] = tuple(n for n in own if n in names and n != model.name)
    return {name: own for name, own in found.items() if own}


def _made_from(inputs: Mapping[str, str], known: Mapping[str, str]) -> str:
    """Labels of inputs, each with the name of the artefact or the start of its fingerprint."""
    parts = []
    for label, fingerprint in inputs.items():
        name = known.get(fingerprint, str(fingerprint)[:12])
        parts.append(name if name == label else f"{label}: {name}")
    return ", ".join(parts)


def _counts_table(
    title: str, rows: Mapping[str, Mapping[str, float]], names: Sequence[str]
) -> Table:
    return Table(
        id=slug("corpus", title),
        title=title,
        head="Count" if title == "Totals" else title,
        columns=tuple(Column(name) for name in names),
        rows=tuple(
            Row(label, tuple(_count_or_number(values.get(name)) for name in names))
            for label, values in rows.items()
        ),
    )


def _numbers(
    counts: Mapping[str, Any], above: tuple[str, ...] = ()
) -> Iterable[tuple[tuple[str, ...], float]]:
    """All numbers in nested counts with the keys that lead to them; durations left out."""
    for key, value in counts.items():
        if "second" in str(key):
            continue
        path = (*above, str(key))
        if isinstance(value, Mapping):
            yield from _numbers(value, path)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield path, value


def _label(path: tuple[str, ...]) -> str:
    rest = path[1:]
    if "language" in path[0]:
        rest = (language_name(path[1]), *path[2:])
    if path[0] == "dropped":  # reasons are words of ours; licences and such are not
        rest = tuple(map(_spaced, rest))
    return ": ".join(rest)


def _total_label(key: str) -> str:
    return "files read" if key == "articles_read" else _spaced(key)


def _spaced(key: str) -> str:
    return key.removeprefix("num_").replace("_", " ")


def _count_or_number(value: float | None) -> Cell:
    if value is not None and float(value).is_integer():
        return count_cell(int(value))
    return number_cell(value, 3)


def _end(values: Sequence[float], index: int) -> Cell:
    return number_cell(values[index], 3) if values else text_cell(DASH)
