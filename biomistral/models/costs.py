"""What a model costs to use: memory, time to load, tokens read and written in a second.

Each model is measured in a process of its own, so that none inherits another's memory or caches.
``cost_process`` is that process. Light to import; knows nothing about what models say.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biomistral import errors
from biomistral.errors import BiomistralError, InputError, ModelError


@dataclass(frozen=True, slots=True)
class CostSettings:
    """How much is read and written. Raises ``InputError`` for numbers below 1."""

    prompt_tokens: int = 512
    new_tokens: int = 32
    batch: int = 8  # sequences that are answered together
    repeats: int = 3  # the fastest counts: others were held up
    precision: str = "bfloat16"
    threads: int | None = None  # None: as PyTorch chooses

    def __post_init__(self) -> None:
        for name in ("prompt_tokens", "new_tokens", "batch", "repeats", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"bench: {name} is {value}; wanted is 1 or more")
        if self.precision not in {"bfloat16", "float32"}:
            raise InputError(
                f"bench: precision {self.precision} is not known; allowed is bfloat16 or float32"
            )


@dataclass(frozen=True, slots=True)
class Cost:
    """What was measured. Bytes on a GPU are those that PyTorch holds, else resident ones."""

    model: str
    device: str
    threads: int
    num_parameters: int  # weights, however few bits each has
    file_bytes: int
    weight_bytes: int  # of all tensors of the model as it is run
    memory_bytes: int  # when everything was used once; libraries that it needs included
    peak_memory_bytes: int
    load_seconds: float
    prompt_tokens: int  # that the numbers below are for: fewer than asked for in a short context
    batch: int
    reading_tokens_per_second: float
    writing_tokens_per_second: float  # one sequence
    batched_tokens_per_second: float  # ``batch`` of them


def measure_apart(
    name: str, folder: Path | str, settings: CostSettings, revision: str | None = None
) -> Cost:
    """Measure a model (a folder, or owner/name on the hub) in a process of its own.

    Raises what that process raised on purpose, and ``ModelError`` if it was killed or broke down.
    """
    package = Path(__file__).resolve().parents[2]
    paths = [str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
    task = {"folder": str(folder), "revision": revision, **dataclasses.asdict(settings)}
    done = subprocess.run(
        [sys.executable, "-m", "biomistral.models.cost_process"],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    try:
        found: Mapping[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise ModelError(f"{name}: {_breakdown(done)}") from None
    if "error" in found:
        kind = getattr(errors, found["kind"], BiomistralError)
        raise kind(f"{name}: {found['error']}")
    return Cost(name, **found)


def _breakdown(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode == -9:
        return "the process that measured it was killed, most likely for want of memory"
    last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    return f"the process that measured it ended with status {done.returncode} ({last})"
