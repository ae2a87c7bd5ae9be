"""What is kept of the step at which a run is stopped: what was learned from in it.

A file beside the folder that the run would have made; it is gone once a run succeeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from biomistral import artifacts
from biomistral.training import processes


def evidence_file(out: Path) -> Path:
    """Where evidence of the artefact ``out`` is kept."""
    return out.with_name(f"{out.name}.stopped.json")


def keep_evidence(
    out: Path, what: str, of_step: Callable[[int], Mapping[str, Any]], step: int, loss: float
) -> str:
    """Write what ``of_step`` says was in a step; return what to add to the error."""
    path = evidence_file(out)
    if processes.is_first():
        artifacts.write_json(path, {"step": step, "loss": str(loss), **of_step(step)})
    return f"; the {what} of this step are listed in {path}"


def forget_evidence(out: Path) -> None:
    """Remove what an earlier run has left, now that one has succeeded."""
    evidence_file(out).unlink(missing_ok=True)
