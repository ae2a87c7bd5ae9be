"""Which folders a report is made from: named one by one, or found in the folder of a run.

A run is what ``biomistral run`` leaves behind, whole or not: what is missing is left out. Reads names
and manifests only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from biomistral import artifacts
from biomistral.errors import InputError


@dataclass(frozen=True)
class Inputs:
    """The folders a report is made from, by name in the order to print; None: there is none."""

    scores: Path | None
    questions: Path | None
    models: Mapping[str, Path] = field(default_factory=dict)
    corpora: Mapping[str, Path] = field(default_factory=dict)
    predictions: Mapping[str, Path] = field(default_factory=dict)
    overlaps: Mapping[str, Path] = field(default_factory=dict)
    adapters: Mapping[str, Path] = field(default_factory=dict)
    distances: Mapping[str, Path] = field(default_factory=dict)
    # Translated questions, and what was measured of them. A run does not say where it had them from.
    translations: Mapping[str, tuple[Path, Path]] = field(default_factory=dict)
    costs: Path | None = None

    def labelled(self) -> Iterator[tuple[str, str, Path]]:
        """Role, name and folder of each input."""
        yield from (("corpus", name, path) for name, path in self.corpora.items())
        yield from (("model", name, path) for name, path in self.models.items())
        yield from (("adapter", name, path) for name, path in self.adapters.items())
        yield from ((("questions", "questions", self.questions),) if self.questions else ())
        yield from (("overlap", name, path) for name, path in self.overlaps.items())
        yield from (("distances", name, path) for name, path in self.distances.items())
        for name, (translations, quality) in self.translations.items():
            yield "translations", name, translations
            own = f"translations-{name}"  # measured by the run itself
            if quality.name == own:
                yield "scores", own, quality
            else:
                yield "translations", f"{name} quality", quality
        yield from (("predictions", name, path) for name, path in self.predictions.items())
        yield from ((("scores", "scores", self.scores),) if self.scores else ())
        yield from ((("scores", "cost", self.costs),) if self.costs else ())


def inputs_of_run(run: Path) -> Inputs:
    """Find the artefacts of a run, the evaluated models first, as they were listed.

    Raises ``InputError`` if there are none, or no such folder.
    """
    if not run.is_dir():
        raise InputError(
            f"{run}: there is no such folder; name that of a run, such as runs/miniature"
        )
    scores = _whole(run / "scores/scores")
    manifest = (artifacts.read_manifest(scores) if scores else None) or {}
    listed = (manifest.get("settings") or {}).get("models") or []
    found = Inputs(
        scores=scores,
        questions=_whole(run / "questions/benchmark"),
        models=_named(run / "model", listed),
        corpora=_named(run / "tokens"),
        predictions=_named(run / "predictions", listed),
        overlaps=_named(run / "overlap"),
        adapters=_named(run / "adapter", listed),
        distances=_named(run / "distances", listed),
        costs=_whole(run / "scores/cost"),
    )
    if not any(True for _ in found.labelled()):
        raise InputError(
            f"{run}: holds no artefact of a run; name a folder that biomistral run or evaluate made, "
            "such as runs/miniature (with model/, predictions/, scores/ or tokens/ in it)"
        )
    return found


def named_runs(runs: Sequence[Path]) -> dict[str, Path]:
    """Name runs by their folders; those with one name by the folders above, too."""
    named: dict[str, Path] = {}
    resolved = [run.resolve() for run in runs]
    for run in resolved:
        depth = 1
        while sum(other.parts[-depth:] == run.parts[-depth:] for other in set(resolved)) > 1:
            depth += 1
        name = "/".join(run.parts[-depth:])
        if name in named:
            raise InputError(f"{run}: is named twice; name each run once")
        named[name] = run
    return named


def _whole(folder: Path) -> Path | None:
    return folder if artifacts.read_manifest(folder) is not None else None


def _named(folder: Path, first: Sequence[str] = ()) -> dict[str, Path]:
    """Whole artefacts of one kind by name: those in ``first`` in that order, then by the alphabet."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    ordered = [*(name for name in first if name in names), *(n for n in names if n not in first)]
    return {name: folder / name for name in ordered if _whole(folder / name)}
