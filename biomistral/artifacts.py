"""Artefacts: folders that are whole or absent and know what made them.

``create`` hands out a hidden draft folder beside the final place. Only when the block ends without
an error is the draft given its ``manifest.json``, flushed to disk and renamed into place, so a
process killed at any instant leaves either nothing or something whole. Work worth keeping over a
kill (checkpoints, finished parts) goes to ``draft.work``, which outlives the process but never the
artefact.

An artefact's *fingerprint* says what it was made from (kind, settings, fingerprints of its inputs,
version of the step) and is known before the work; its *content digest* says what came out.

Knows nothing about recipes or about what the folders contain.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from biomistral import __version__
from biomistral.errors import InputError

Kind = Literal["tokens", "model", "questions", "predictions", "scores", "report", "miniature"]

MANIFEST = "manifest.json"
WORK = ".work"
_LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "accelerate", "pyarrow", "lxml")
# Files whose bytes may differ between two runs of the same step: timings, never results.
VOLATILE_SUFFIX = ".volatile.json"


@dataclass(frozen=True)
class Origin:
    """What an artefact is made from; two artefacts with one fingerprint are interchangeable."""

    kind: Kind
    name: str
    settings: Mapping[str, Any]  # JSON values only
    inputs: Mapping[str, str] = field(default_factory=dict)  # name -> fingerprint
    step_version: int = 1  # raised when a step's code changes what it makes

    @functools.cached_property
    def fingerprint(self) -> str:
        """64 hexadecimal digits (SHA-256) over everything but the artefact's name."""
        return digest_of(
            {
                "kind": self.kind,
                "settings": self.settings,
                "inputs": self.inputs,
                "step_version": self.step_version,
            }
        )


@dataclass
class Draft:
    """An artefact in the making. Write its files to ``folder``; put numbers to keep in ``counts``."""

    folder: Path
    work: Path  # kept over kills, gone from the finished artefact
    counts: dict[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    threads: int | None = None  # of torch, where results depend on it
    not_deterministic: str = ""  # why another run may give other bytes; empty if it may not


def digest_of(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form (sorted keys, no blanks)."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def create(out: Path, origin: Origin, *, resume: bool = False) -> Iterator[Draft]:
    """Make the artefact ``out``: yield a draft to fill, publish it when the block succeeds.

    With ``resume`` the draft's ``work`` folder of an interrupted run with the same fingerprint is
    handed out again; everything else starts empty. An artefact that is already at ``out`` is
    replaced only at the very end.

    Raises ``InputError`` if ``out`` is something not made by this package, if another process is
    making it, if the disk is full or the place cannot be written to.
    """
    out = out.absolute()
    _refuse_foreign(out)
    partial = out.parent / f".{out.name}.{origin.fingerprint[:12]}.partial"
    started = time.perf_counter()
    with _plain_os_errors(out), _held(partial):
        resumed = _empty(partial, keep_work=resume)
        draft = Draft(folder=partial, work=partial / WORK)
        draft.work.mkdir(exist_ok=True)
        try:
            yield draft
        except BaseException:
            if not resume or not any(draft.work.iterdir()):
                shutil.rmtree(partial, ignore_errors=True)
            raise
        shutil.rmtree(draft.work)
        seconds = time.perf_counter() - started
        _write_manifest(partial, origin, draft, seconds=seconds, resumed=resumed)
        _publish(partial, out)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of the artefact at ``folder``, or None if no whole artefact is there."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and "fingerprint" in manifest else None


def content_digest(folder: Path) -> str:
    """SHA-256 over the names and bytes of an artefact's files, its manifest and timings apart."""
    total = hashlib.sha256()
    for path in sorted(_files(folder), key=lambda p: p.relative_to(folder).as_posix()):
        relative = path.relative_to(folder).as_posix()
        if relative == MANIFEST or relative.endswith(VOLATILE_SUFFIX):
            continue
        total.update(f"{relative}\0{file_digest(path)}\n".encode())
    return total.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of one file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fingerprint_of_files(paths: Iterable[Path]) -> str:
    """Fingerprint of files given by the user: their names in order and their bytes.

    Weights (``.safetensors``, ``.bin``) count by size and time of change instead of bytes: reading
    15 GB before each run would cost more than it saves. A folder that holds a manifest counts by
    the fingerprint in it, and any other folder by the files in it.
    """
    parts: list[list[str]] = []
    for path in paths:
        manifest = read_manifest(path) if path.is_dir() else None
        if manifest is not None:
            parts.append([path.name, str(manifest["fingerprint"])])
            continue
        files = sorted(_files(path)) if path.is_dir() else [path]
        for file in files:
            label = file.relative_to(path).as_posix() if path.is_dir() else file.name
            if file.suffix in {".safetensors", ".bin"}:
                status = file.stat()
                parts.append([label, f"{status.st_size}:{status.st_mtime_ns}"])
            else:
                parts.append([label, file_digest(file)])
    return digest_of(parts)


def size_bytes(folder: Path) -> int:
    """Total size of the files below ``folder``."""
    return sum(path.stat().st_size for path in _files(folder))


def write_json(path: Path, value: Any) -> None:
    """Write one JSON file, readable and with a stable order of keys."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _refuse_foreign(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()) and read_manifest(out) is None:
        raise InputError(
            f"{out}: already exists and was not made by biomistral; "
            "name another output folder, or move this one away"
        )
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file, a folder is to be made there; name another output")


@contextlib.contextmanager
def _plain_os_errors(out: Path) -> Iterator[None]:
    """Turn a full disk and a place that cannot be written into errors a user can read."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise InputError(
                f"{out}: no space left on the disk; free some or choose another --out, then run "
                "the same command again"
            ) from error
        if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR}:
            raise InputError(
                f"{error.filename or out}: cannot be written ({error.strerror}); "
                "choose another --out or change its permissions"
            ) from error
        raise
    except Exception as error:
        # Rust and C++ writers (safetensors, Arrow) report a full disk in words only.
        if "No space left on device" in str(error):
            raise InputError(
                f"{out}: no space left on the disk; free some or choose another --out, then run "
                "the same command again"
            ) from error
        raise


@contextlib.contextmanager
def _held(partial: Path) -> Iterator[None]:
    """Create and lock the draft folder; the system drops the lock when the process dies."""
    partial.mkdir(parents=True, exist_ok=True)
    handle = os.open(partial, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(
            f"{partial}: another process is making this artefact; wait for it or stop it"
        ) from None
    else:
        yield
    finally:
        os.close(handle)


def _empty(partial: Path, *, keep_work: bool) -> bool:
    """Clear a draft folder and say whether work of an interrupted run was kept."""
    kept = False
    for child in partial.iterdir():
        if keep_work and child.name == WORK:
            kept = any(child.iterdir())
        elif child.is_dir():
            shutil.rmtree(child)
        else:
            child.unlink()
    return kept


def _write_manifest(
    folder: Path, origin: Origin, draft: Draft, *, seconds: float, resumed: bool
) -> None:
    manifest = {
        "kind": origin.kind,
        "name": origin.name,
        "fingerprint": origin.fingerprint,
        "content_sha256": content_digest(folder),
        "settings": origin.settings,
        "inputs": origin.inputs,
        "step_version": origin.step_version,
        "counts": draft.counts,
        "deterministic": draft.not_deterministic or True,
        "device": draft.device,
        "threads": draft.threads,
        "seconds": round(seconds, 3),  # of the last attempt, if it was resumed
        "resumed": resumed,
        "bytes": size_bytes(folder),
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": library_versions(),
        "commit": _commit(),
    }
    write_json(folder / MANIFEST, manifest)


def _publish(partial: Path, out: Path) -> None:
    """Flush the draft to disk and rename it into place; sweep away what stood there before."""
    for path in (*_files(partial), *(p for p in partial.rglob("*") if p.is_dir()), partial):
        _fsync(path)
    if out.exists():
        old = out.parent / f".{out.name}.{os.getpid()}.old"
        out.rename(old)
    partial.rename(out)
    _fsync(out.parent)
    for pattern in (f".{out.name}.*.old", f".{out.name}.*.partial"):
        for stale in out.parent.glob(pattern):
            if stale.suffix == ".old" or _is_free(stale):
                shutil.rmtree(stale, ignore_errors=True)


def _is_free(partial: Path) -> bool:
    handle = os.open(partial, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@functools.cache
def library_versions() -> dict[str, str]:
    """Versions of Python, this package and the libraries results depend on, without importing."""
    versions = {"python": platform.python_version(), "biomistral": __version__}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


@functools.cache
def _commit() -> str | None:
    """Commit of the checkout this package runs from, ``+changes`` if it was edited since."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        top = subprocess.run(
            [*git, "ls-files", "--error-unmatch", __file__], capture_output=True, check=False
        )
        if top.returncode != 0:  # installed from a wheel inside somebody else's repository
            return None
        commit = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, check=True, text=True
        )
        dirty = subprocess.run(
            [*git, "status", "--porcelain", "."], capture_output=True, check=True, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("+changes" if dirty.stdout.strip() else "")
