"""With what an artefact was made: versions of its step, of the libraries, and the commit."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path

from biomistral import __version__

LIBRARIES = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "accelerate",
    "pyarrow",
    "lxml",
    "bitsandbytes",
    "peft",
    "trl",
)


# Raised when the code of a step changes what it makes; artefacts of older versions are made again.
STEP_VERSIONS: Mapping[str, int] = {
    "fresh": 1,
    "corpus": 4,
    "pretrain": 4,
    "training_questions": 1,
    "sft": 3,
    "dpo": 2,
    "merge": 2,
    "distances": 1,
    "quantize": 2,
    "questions": 2,
    "overlap": 2,
    "predict": 6,
    "translate": 2,
    "ensemble": 3,
    "score": 5,
    "report": 13,
    "cost": 2,
}


@functools.cache
def library_versions() -> dict[str, str]:
    """Versions of Python, this package and the libraries results depend on, without importing."""
    versions = {"python": platform.python_version(), "biomistral": __version__}
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


@functools.cache
def commit() -> str | None:
    """Commit of the checkout this package runs from, ``+changes`` if it was edited since."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        top = subprocess.run(
            [*git, "ls-files", "--error-unmatch", __file__], capture_output=True, check=False
        )
        if top.returncode != 0:  # installed from a wheel inside somebody else's repository
            return None
        head = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, check=True, text=True
        )
        dirty = subprocess.run(
            [*git, "status", "--porcelain", "."], capture_output=True, check=True, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+changes" if dirty.stdout.strip() else "")
