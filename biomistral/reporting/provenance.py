"""Where each number of the report is from: the artefacts that a row of a table was made of.

Pure: from manifests to what is printed of them, and from a section and a row to artefacts. Which
kinds of artefacts a section reads is a table here; which of these, the names in the row say. Tells
no time, no duration and no absolute path.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import Any

from biomistral.records import Score
from biomistral.reporting.results import AVERAGE
from biomistral.reporting.run_tables import Artefact
from biomistral.reporting.tables import Row, Table, slug

KINDS = {"corpus": "tokens"}  # roles that have another name as folders of a run
# For each section: kinds whose names stand in a row, and what all rows are of (kind/name, kind/*).
_SCORED = ("predictions", "scores/scores")
SOURCES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("accuracy", "tuning", "groups", "truthfulness"), _SCORED),
    **dict.fromkeys(("languages", "comparisons"), _SCORED),
    **dict.fromkeys(("calibration", "abstaining", "positions"), _SCORED),
    "quantization": ("model", *_SCORED),
    "cost": ("model", "scores/cost"),
    "training": ("adapter", "model"),
    "corpora": ("tokens", "overlap"),
    "distances": ("distances", "model"),
    "translations": ("translations/*", "scores/translations-*"),
    "benchmark": ("questions/benchmark",),
    "provenance": (
        *(
            "tokens",
            "model",
            "adapter",
            "questions",
            "overlap",
            "distances",
            "translations",
            "predictions",
            "scores",
        ),
    ),
    "published": (),  # measured by others: the note names the source
}
_UNKNOWN = ("model", "predictions")  # of a section that nobody entered here, what rows name


@dataclass(frozen=True, slots=True)
class Made:
    """What is told of one artefact, and where on the page."""

    key: str  # kind/name, as the folder in a run is called; with the run before it if several
    path: str  # kind/name
    run: str
    anchor: str
    role: str
    name: str
    fingerprint: str  # empty: not made by this package
    content: str  # SHA-256 of what came out
    step_version: str
    commit: str
    command: str
    place: str  # of its folder as seen from the page; empty if the report is not made in the run
    inputs: Mapping[str, str]  # label -> anchor of the artefact, or the start of a fingerprint
    settings: str  # JSON
    versions: str


def made_of(artefacts: Sequence[Artefact]) -> list[Made]:
    """Describe all artefacts; anchors are unique."""
    anchors: dict[str, str] = {}
    for artefact in artefacts:
        anchor = plain = slug("made", key_of(artefact))
        count = 1
        while anchor in anchors.values():
            count += 1
            anchor = f"{plain}-{count}"
        anchors.setdefault(key_of(artefact), anchor)
    known = {a.manifest["fingerprint"]: key_of(a) for a in artefacts if a.manifest}
    unique = {key_of(artefact): artefact for artefact in artefacts}
    return [_made(key, artefact, anchors, known) for key, artefact in unique.items()]


def key_of(artefact: Artefact) -> str:
    """Name an artefact by its folder in its run, and by the run if there are several."""
    return f"{artefact.run}: {_path(artefact)}" if artefact.run else _path(artefact)


def _path(artefact: Artefact) -> str:
    name = artefact.own_name or artefact.name
    kind = KINDS.get(artefact.role, artefact.role)
    return f"{kind}/{'benchmark' if artefact.role == 'questions' else name}"


def sources_of(section: str, table: Table, row: Row, made: Sequence[Made]) -> list[Made]:
    """Return the artefacts that the numbers of a row are from, those of the row's names first."""
    names = {row.label, *(cell.text for cell in row.cells if cell.value is None)}
    heads = {column.title for column in table.columns}
    kinds = SOURCES.get(section, _UNKNOWN)
    if section == "provenance":  # where names repeat from kind to kind, which stand in the row
        kinds = tuple(kind for kind in kinds if kind in names)
    tied = [
        each
        for each in made
        if each.path.split("/")[0] in kinds
        and (each.name in names or _in_heads(section, table, each, heads))
    ]
    runs = {each.run for each in tied} or {each.run for each in made}
    whole = [
        each
        for each in made
        if each.run in runs and any(fnmatchcase(each.path, kind) for kind in kinds)
    ]
    return [*tied, *(each for each in whole if each not in tied)]


def questions_behind(score: Score | None) -> str:
    """Task (or group of tasks), language, scoring and shots of the questions that a score is of."""
    if score is None:
        return ""
    task = f"group:{score.group}" if score.task == AVERAGE else score.task
    return "|".join((task, score.language, score.scoring, str(score.shots)))


def _in_heads(section: str, table: Table, made: Made, heads: set[str]) -> bool:
    """Corpora stand in the heads of their tables, or in the table's name; so do translations."""
    if section == "translations":
        name = made.name.removeprefix("translations-").removesuffix(" quality")
        return table.id == slug("translations", name)
    if section != "corpora":
        return False
    if made.role == "overlap":
        return table.id in (slug("overlap", made.name), slug("overlap-by-language", made.name))
    return made.name in heads


def _made(
    key: str, artefact: Artefact, anchors: Mapping[str, str], known: Mapping[str, str]
) -> Made:
    manifest = artefact.manifest or {}
    inputs = manifest.get("inputs") or {}
    is_of_run = artefact.role != "translations"  # which are given to it
    return Made(
        key=key,
        path=_path(artefact),
        run=artefact.run,
        anchor=anchors[key],
        role=artefact.role,
        name=artefact.name,
        fingerprint=str(manifest.get("fingerprint", "")),
        content=str(manifest.get("content_sha256") or ""),
        step_version=str(manifest.get("step_version", "")),
        commit=str(manifest.get("commit") or ""),
        command=f"biomistral run recipe.yaml --only {_path(artefact)}"
        if manifest and is_of_run
        else "",
        place=artefact.place,
        inputs={
            str(label): anchors.get(known.get(fingerprint, ""), str(fingerprint)[:12])
            for label, fingerprint in inputs.items()
        },
        settings=json.dumps(told(manifest.get("settings") or {}), indent=2, ensure_ascii=False),
        versions=", ".join(f"{k} {v}" for k, v in (manifest.get("versions") or {}).items()),
    )


def told(value: Any) -> Any:
    """Return JSON with absolute paths cut to their last part: where data lay says who ran it."""
    if isinstance(value, Mapping):
        return {key: told(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [told(item) for item in value]
    if isinstance(value, str) and PurePath(value).is_absolute():
        return f"…/{PurePath(value).name}"
    return value
