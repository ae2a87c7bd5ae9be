"""What a model is, in one digest: the bytes of its weights, its config and its tokenizer.

Answers that are kept are looked up by it, so another model at the same path is another model, and
a copy of a model somewhere else is the same one. Cards, licences, logs, manifests and calibration do not count.
Knows nothing about what the bytes mean.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from biomistral import artifacts
from biomistral.errors import InputError

# What is read when a model or its tokenizer is loaded.
_READ = (
    "*.safetensors",
    "*.gguf",
    "*.json",
    "*.model",
    "*.model.v*",
    "*.jinja",
    "merges.txt",
    "vocab.txt",
)
_SHA256 = re.compile(r"[0-9a-f]{64}")


def model_digest(folder: Path, digest: Callable[[Path], str] = artifacts.file_digest) -> str:
    """Return 64 hexadecimal digits for the model in ``folder``; ``digest`` may remember files.

    Every byte counts: two models that differ in one row of one weight are told apart. In the cache
    of the hub, the name of a large file is its digest already.

    Raises ``InputError`` if a file cannot be read.
    """
    files = sorted({path for pattern in _READ for path in folder.glob(pattern) if _counts(path)})
    try:
        with ThreadPoolExecutor() as pool:  # hashing sets other threads free
            marks = list(pool.map(lambda path: _hub_digest(path) or digest(path), files))
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from error
    return artifacts.digest_of([[path.name, mark] for path, mark in zip(files, marks, strict=True)])


def digest_of_model(
    path: str | Path,
    revision: str | None = None,
    digest: Callable[[Path], str] = artifacts.file_digest,
) -> str:
    """``model_digest`` for a model in any form that is loaded by a path, an adapter added or not."""
    from biomistral.models.adapted import adapted
    from biomistral.models.hub import local_folder

    if parts := adapted(path, revision):
        return artifacts.digest_of([model_digest(each, digest) for each in parts.folders])
    return model_digest(local_folder(path, revision), digest)


def _counts(path: Path) -> bool:
    return path.is_file() and not artifacts.is_note(path.name)


def _hub_digest(path: Path) -> str | None:
    """The digest that a large file of the hub's cache is named by."""
    target = path.resolve()
    if path.is_symlink() and target.parent.name == "blobs" and _SHA256.fullmatch(target.name):
        return target.name
    return None
