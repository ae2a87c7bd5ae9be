"""The steps that measure the quality of translated questions, one for each folder of translations.

Part of ``plan``, which knows the other steps. A folder that was measured before, with a way back into
English, is taken as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from biomistral import artifacts
from biomistral.artifacts import Origin
from biomistral.pipeline.builder import Builder
from biomistral.pipeline.steps import Make
from biomistral.progress import Progress

_TRANSLATIONS = "translations.parquet"


@dataclass
class Translated:
    """Translations with their quality, for the report, and what it then depends on."""

    folders: dict[str, tuple[Path, Path]] = field(default_factory=dict)  # translations, quality
    needs: list[str] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


def add_translated(builder: Builder) -> Translated:
    """Add a step for each folder of translations that was not measured before.

    Folders that are not there, or are other tasks of the user, are left out: the step that reads the
    questions speaks of those.
    """
    benchmark = builder.recipe.benchmark
    measured = {
        _translations_of(Path(place)): Path(place) for place in benchmark.translation_quality
    }
    found = Translated()
    for place in map(Path, benchmark.translations):
        if not (place / _TRANSLATIONS).is_file():
            continue
        name = _unused(place.resolve().name, found.folders)
        mark = artifacts.fingerprint_of_files([place])
        found.sources[f"translations/{name}"] = mark
        quality = measured.pop(mark, None)
        if quality is None:
            quality = builder.root / f"scores/translations-{name}"
            found.needs.append(f"scores/translations-{name}")
            builder.add(
                "scores",
                f"translations-{name}",
                {"back": None},
                code="translate",
                make=_measure(place),
                sources={"translations": mark},
                section="benchmark",
            )
        else:
            found.sources[f"quality/{name}"] = artifacts.fingerprint_of_files([quality])
        found.folders[name] = (place, quality)
    found.missing += [
        f"{place}: was not measured on any folder of benchmark.translations; make it again with "
        "biomistral translate quality, or leave it out of benchmark.translation_quality"
        for place in measured.values()
    ]
    return found


def _translations_of(quality: Path) -> str:
    """Fingerprint of the translations that were measured; the path itself if nobody knows."""
    manifest = artifacts.read_manifest(quality) if quality.is_dir() else None
    return str(((manifest or {}).get("inputs") or {}).get("translations", quality))


def _unused(name: str, used: dict[str, tuple[Path, Path]]) -> str:
    found, number = name, 1
    while found in used:
        number += 1
        found = f"{name}-{number}"
    return found


def _measure(translations: Path) -> Make:
    def make(out: Path, origin: Origin, progress: Progress) -> None:
        from biomistral.translation import measure_quality

        measure_quality(translations, out, origin=origin, progress=progress)

    return make
