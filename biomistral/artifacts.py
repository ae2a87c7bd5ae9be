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
import fcntl
import functools
import hashlib
import itertools
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from biomistral import versions
from biomistral.disk import flush as flush  # noqa: PLC0414
from biomistral.disk import plain_os_errors
from biomistral.errors import InputError
from biomistral.hashing import canonical
from biomistral.hashing import digest_of as digest_of  # noqa: PLC0414  used as a part of this module
from biomistral.hashing import file_digest as file_digest  # noqa: PLC0414

Kind = Literal[
    "tokens",
    "dataset",
    "model",
    "adapter",
    "questions",
    "overlap",
    "distances",
    "translations",
    "predictions",
    "scores",
    "report",
    "miniature",
]

MANIFEST = "manifest.json"
WORK = ".work"
# Files whose bytes may differ between two runs of the same step: timings, never results.
VOLATILE_SUFFIX = ".volatile.json"
# Put beside a model's files after it was made, by measuring it: no part of what the model is.
CALIBRATION = "calibration.json"
# Whose digests are held in memory together.
_FILES_AT_A_TIME = 4_096


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
    digest: bool = (
        True  # keep the content digest; reading everything again may cost more than making it
    )


@contextlib.contextmanager
def create(out: Path, origin: Origin, *, resume: bool = False) -> Iterator[Draft]:
    """Make the artefact ``out``: yield a draft to fill, publish it when the block succeeds.

    With ``resume`` the draft's ``work`` folder of an interrupted run with the same fingerprint is
    handed out again; everything else starts empty. An artefact that is already at ``out`` is
    replaced only at the very end.

    Where ``out`` is a link, the artefact is made at the place that it points to. Raises
    ``InputError`` if ``out`` is something not made by this package or an artefact of another kind,
    if another process is making it, if the disk is full or the place cannot be written to.
    """
    out = out.resolve()
    partial = draft_folder(out, origin)
    started = time.perf_counter()
    with plain_os_errors(out), _held(out, partial, origin.kind):
        resumed = _empty(partial, keep_work=resume)
        draft = Draft(folder=partial, work=partial / WORK)
        draft.work.mkdir(exist_ok=True)
        try:
            yield draft
            seconds = time.perf_counter() - started
            _write_manifest(partial, origin, draft, seconds=seconds, resumed=resumed)
            _publish(partial, out)
        except BaseException:
            if not resume or not _has_files(draft.work):
                shutil.rmtree(partial, ignore_errors=True)
            raise


def draft_folder(out: Path, origin: Origin) -> Path:
    """The hidden folder in which the artefact ``out`` is made."""
    out = out.resolve()
    return out.parent / f".{out.name}.{origin.fingerprint[:12]}.partial"


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of the artefact at ``folder``, or None if no whole artefact is there."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and "fingerprint" in manifest else None


def content_digest(folder: Path) -> str:
    """SHA-256 over the names and bytes of an artefact's files, notes about it apart."""
    total = hashlib.sha256()
    for path in sorted(_files(folder), key=lambda p: p.relative_to(folder).as_posix()):
        relative = path.relative_to(folder).as_posix()
        if is_note(relative):
            continue
        total.update(f"{relative}\0{file_digest(path)}\n".encode())
    return total.hexdigest()


def fingerprint_of_files(
    files: Iterable[Path | tuple[str, Path]], digest: Callable[[Path], str] = file_digest
) -> str:
    """Fingerprint of files given by the user: their labels in order and their bytes.

    The label is the path below the data folder where folders mean something (a language), so that
    data may be moved; a path without one has its last part. Weights (``.safetensors``, ``.bin``,
    ``.gguf``) count by size and time of change: reading 15 GB before each run would cost more than
    it saves. A folder that holds a manifest counts by the fingerprint in it, any other by the files in it.

    ``files`` is taken bit by bit: there may be millions.

    Raises ``InputError`` if a file cannot be read.
    """
    labelled = _labelled(files)
    total, comma = hashlib.sha256(b"["), b""  # as digest_of hashes a list of [label, mark]
    try:
        with ThreadPoolExecutor() as pool:  # hashing sets other threads free
            while batch := list(itertools.islice(labelled, _FILES_AT_A_TIME)):
                # Few large files are shared out singly; of many small ones each thread takes a run.
                size = max(1, len(batch) // 64)
                runs = (batch[start : start + size] for start in range(0, len(batch), size))
                for marks in pool.map(functools.partial(_marks, digest), runs):
                    for mark in marks:
                        total.update(comma + canonical(mark))
                        comma = b","
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from error
    total.update(b"]")
    return total.hexdigest()


def _labelled(
    files: Iterable[Path | tuple[str, Path]],
) -> Iterator[tuple[str, Path, str | None]]:
    """Labels, paths and, of folders with a manifest, what these count by; other folders by file."""
    for file in files:
        label, path = file if isinstance(file, tuple) else (file.name, file)
        if not path.is_dir():
            yield label, path, None
        elif manifest := read_manifest(path):
            yield label, path, str(manifest["fingerprint"])
        else:
            own = ((p.relative_to(path).as_posix(), p) for p in sorted(_files(path)))
            yield from ((name, file, None) for name, file in own if name != CALIBRATION)


def _marks(
    digest: Callable[[Path], str], files: Iterable[tuple[str, Path, str | None]]
) -> list[list[str]]:
    return [[label, known or _mark(path, digest)] for label, path, known in files]


def _mark(path: Path, digest: Callable[[Path], str]) -> str:
    """What a file counts by."""
    if path.suffix not in {".safetensors", ".bin", ".gguf"}:
        return digest(path)
    return f"{path.stat().st_size}:{path.stat().st_mtime_ns}"


def size_bytes(folder: Path) -> int:
    """Total size of the files of an artefact."""
    return sum(path.stat().st_size for path in _files(folder))


def write_json(path: Path, value: Any) -> None:
    """Write one JSON file, readable and with a stable order of keys."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def is_note(name: str) -> bool:
    """Whether a file of an artefact says something about it, and is no part of it."""
    return name in {MANIFEST, CALIBRATION} or name.endswith(VOLATILE_SUFFIX)


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder, those in the work folder of a draft apart."""
    work = folder / WORK
    return (p for p in folder.rglob("*") if p.is_file() and not p.is_relative_to(work))


def _has_files(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def check_apart(out: Path, inputs: Mapping[str, Path]) -> None:
    """Raise ``InputError`` if ``out`` is one of the inputs, lies in one or holds one.

    Making it would then change or remove what it is made from. ``inputs`` are files and folders
    by the names that the user gave them.
    """
    place = out.resolve()
    for name, path in inputs.items():
        given = path.resolve()
        if given == place:
            how = "is"
        elif place in given.parents:
            how = "holds"
        elif given in place.parents:
            how = "lies in"
        else:
            continue
        raise InputError(f"{out}: {how} the input {name!r}, which is read; name another output")


def _refuse_foreign(out: Path, kind: Kind) -> None:
    if out.is_dir() and Path.cwd().is_relative_to(out):
        raise InputError(
            f"{out}: is the folder this was started in, or holds it, and cannot be replaced; name "
            "a folder that is not there yet"
        )
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file, a folder is to be made there; name another output")
    if not _has_files(out):
        return
    manifest = read_manifest(out)
    if manifest is None:
        raise InputError(
            f"{out}: already exists and was not made by biomistral; "
            "name another output folder, or move this one away"
        )
    if manifest.get("kind") != kind:
        raise InputError(
            f"{out}: already exists and is of the kind {manifest.get('kind')}, which is not "
            f"replaced by one of the kind {kind}; name another output folder, or move this one away"
        )


@contextlib.contextmanager
def _held(out: Path, partial: Path, kind: Kind) -> Iterator[None]:
    """Create and lock the draft folder; the system drops the lock when the process dies."""
    _refuse_foreign(out, kind)
    partial.mkdir(parents=True, exist_ok=True)
    handle = os.open(partial, os.O_RDONLY)
    try:
        if not _lock(handle) or not _is_at(handle, partial):
            raise InputError(
                f"{partial}: another process is making this artefact; wait for it or stop it"
            )
        yield
    finally:
        os.close(handle)


def _lock(handle: int) -> bool:
    """Lock an open folder if nobody else holds it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(handle: int, path: Path) -> bool:
    """Whether an open folder still has that name: its last holder may just have published it."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


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
        "content_sha256": content_digest(folder) if draft.digest else None,
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
        "versions": versions.library_versions(),
        "commit": versions.commit(),
    }
    write_json(folder / MANIFEST, manifest)


def _publish(partial: Path, out: Path) -> None:
    """Flush the draft to disk and rename it into place; sweep away what stood there before."""
    work = partial / WORK
    folders = (path for path in partial.rglob("*") if path.is_dir())
    with ThreadPoolExecutor(16) as pool:  # 2,000 small files: 0.2 s instead of 3 s, measured here
        list(pool.map(flush, (*_files(partial), *folders, partial)))
    shutil.rmtree(work)  # as late as this: a kill while 15 GB are flushed must not cost days
    if out.exists():
        old = out.parent / f".{out.name}.{os.getpid()}.old"
        out.rename(old)
    partial.rename(out)
    flush(out.parent)
    _sweep(out)


def _sweep(out: Path) -> None:
    """Remove what older and interrupted runs left of this artefact, and of no other."""
    leftover = re.compile(rf"\.{re.escape(out.name)}\.([0-9a-f]{{12}}\.partial|[0-9]+\.old)")
    for path in out.parent.iterdir():
        if not leftover.fullmatch(path.name) or path.is_symlink():
            continue
        if path.suffix == ".old" or _is_free(path):
            shutil.rmtree(path, ignore_errors=True)


def _is_free(partial: Path) -> bool:
    try:
        handle = os.open(partial, os.O_RDONLY)
    except FileNotFoundError:  # another process has just swept it away
        return False
    try:
        return _lock(handle)
    finally:
        os.close(handle)
