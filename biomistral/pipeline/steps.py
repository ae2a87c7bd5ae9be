"""What a step is, and whether it has to run.

A step makes one artefact at ``<root>/<kind>/<name>`` out of settings, other artefacts and files of
the user. Its fingerprint is known before any work: two steps with one fingerprint make the same.
Knows nothing about recipes or about how a step does its work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from biomistral import artifacts
from biomistral.artifacts import Kind, Origin
from biomistral.progress import Progress

Make = Callable[[Path, Origin, Progress], object]  # out, origin, progress


@dataclass(frozen=True)
class Step:
    """One artefact to make."""

    kind: Kind
    name: str
    origin: Origin
    needs: tuple[str, ...]  # keys of the steps it takes artefacts from
    make: Make = field(compare=False, repr=False)
    section: str = ""  # of the recipe it comes from
    missing: tuple[str, ...] = ()  # what it needs from the user that is not there
    code: str = ""  # that makes it, by its name in ``versions.STEP_VERSIONS``

    @property
    def key(self) -> str:
        """``kind/name``: unique in a run, and its folder below the root."""
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True)
class Verdict:
    """Whether a step has to run, and why."""

    state: Literal["done", "new", "changed"]
    reason: str = ""


def board_of(out: Path) -> Path:
    """Where TensorBoard finds the curves of a model of a run: ``<run>/board/<name>``."""
    return out.parent.parent / "board" / out.name


def judge(step: Step, root: Path) -> Verdict:
    """Compare a step with what lies at its place."""
    manifest = artifacts.read_manifest(root / step.key)
    if manifest is None:
        return Verdict("new")
    if manifest["fingerprint"] == step.origin.fingerprint:
        return Verdict("done")
    return Verdict("changed", _difference(step.origin, manifest))


def _difference(origin: Origin, manifest: Mapping[str, Any]) -> str:
    """Say what changed since the artefact was made: the step's code, settings or inputs."""
    if manifest.get("step_version") != origin.step_version:
        return "this version makes it differently"
    old, new = manifest.get("settings", {}), dict(origin.settings)
    settings = [
        f"{key}: {_short(old.get(key))} -> {_short(new.get(key))}"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]
    old_inputs = manifest.get("inputs", {})
    inputs = sorted(
        name
        for name in {*old_inputs, *origin.inputs}
        if old_inputs.get(name) != origin.inputs.get(name)
    )
    parts = [*settings, *([f"input {', '.join(inputs)}"] if inputs else [])]
    return "; ".join(parts) or "its manifest is of another version"


def _short(value: Any) -> str:
    text = "unset" if value is None else str(value)
    return text if len(text) <= 40 else text[:37] + "..."
