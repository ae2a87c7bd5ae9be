"""The edge of differences: a model and those that it was made from in, a table out.

    distances.parquet   records.LayerDistance: per model it was made from, layer and kind of tensor

What is measured of two checkpoints is in ``difference``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from biomistral import artifacts
from biomistral.artifacts import Origin
from biomistral.errors import ModelError
from biomistral.merging.difference import Comparison, Row, by_kind, compare
from biomistral.progress import Progress, ignore
from biomistral.records import LayerDistance, write_records
from biomistral.versions import STEP_VERSIONS

DISTANCES = "distances.parquet"
ALL = "all"  # layers, or kinds of tensors


def measure_distances(
    name: str,
    model: Path,
    others: Mapping[str, Path],
    out: Path,
    *,
    origin: Origin | None = None,
    progress: Progress = ignore,
) -> Path:
    """Measure how far a checkpoint is from each of ``others``, by name; return ``out``.

    What cannot be compared (another architecture, weights that are no plain numbers) is no error:
    it is said in the manifest, in ``counts["remarks"]``.
    """
    origin = origin or _origin(name, model, others)
    rows: list[LayerDistance] = []
    remarks: list[str] = []
    with artifacts.create(out, origin) as draft:
        for other, folder in others.items():
            try:
                found = compare(folder, model, names=(other, name), progress=progress)
            except ModelError as error:
                remarks.append(_without_places(f"{name} and {other}: {error}", folder, model))
                continue
            rows += _rows(name, other, found)
            remarks += [f"{name} and {other}: {remark}" for remark in found.remarks]
        write_records(draft.folder / DISTANCES, rows, LayerDistance)
        draft.counts["remarks"] = remarks
    return out


def _origin(name: str, model: Path, others: Mapping[str, Path]) -> Origin:
    inputs = {
        label: artifacts.fingerprint_of_files([folder])
        for label, folder in {name: model, **others}.items()
    }
    settings = {"model": name, "others": list(others)}
    return Origin("distances", name, settings, inputs, STEP_VERSIONS["distances"])


def _rows(name: str, other: str, found: Comparison) -> Iterator[LayerDistance]:
    """All of a model, then layer by layer, then within layers the kinds of tensors."""
    yield _record(name, other, found.total, ALL, ALL)
    yield from (_record(name, other, row, _label(row), ALL) for row in found.layers)
    for row in by_kind(found.rows):
        if row.stack is not None:
            yield _record(name, other, row, _label(row), row.kind)


def _label(row: Row) -> str:
    """``model.layers.3``, or the name of a tensor outside all layers."""
    return row.name if row.stack is None else f"{row.stack}{row.layer}"


def _record(name: str, other: str, row: Row, layer: str, kind: str) -> LayerDistance:
    difference = row.difference
    return LayerDistance(
        model=name,
        other=other,
        layer=layer,
        kind=kind,
        num_elements=difference.elements,
        relative_norm=difference.relative_norm,
        cosine=difference.cosine,
        sign_agreement=difference.sign_agreement,
    )


def _without_places(text: str, *folders: Path) -> str:
    """An artefact does not say where it was made."""
    for folder in folders:
        text = text.replace(str(folder), folder.name)
    return text
