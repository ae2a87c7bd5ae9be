"""Digests of the user's files, remembered between plans of one run.

Reading every article before each run would take minutes on a whole archive. A file counts as
unchanged while its size and times of change are the same; one that changed less than two seconds
before it was read is not remembered, for a second edit might leave both as they are. The memory is
a file in the run's folder that may be deleted at any time. Knows nothing about what files hold.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path

from biomistral import artifacts

NAME = "digests" + artifacts.VOLATILE_SUFFIX
_SETTLED_NS = 2_000_000_000


class FileDigests:
    """Call it with a path for the SHA-256 of the file; ``save`` at the end. Threads may share it."""

    def __init__(self, root: Path, name: str = NAME, *, remember: bool = True) -> None:
        self._path = root / name
        self._remember = remember
        self._known = _read(self._path) if remember else {}
        # By absolute path, "size mtime_ns ctime_ns digest" (no copy takes ctime along): one text
        # each, for there may be millions.
        self._used: dict[str, str] = {}

    def __call__(self, path: Path) -> str:
        """Raise ``OSError`` if the file cannot be read."""
        key, now, status = str(path.absolute()), time.time_ns(), path.stat()
        state = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} "
        entry = self._used.get(key) or self._known.get(key)
        if entry is not None and entry.startswith(state):
            self._used[key] = entry
            return entry[len(state) :]
        digest = artifacts.file_digest(path)
        if status.st_mtime_ns < now - _SETTLED_NS:
            self._used[key] = state + digest
        return digest

    def save(self) -> None:
        """Keep the digests that were used, if the run's folder is there and can be written to."""
        if not self._remember or self._used == self._known or not self._path.parent.is_dir():
            return
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        with contextlib.suppress(OSError):
            artifacts.write_json(draft, self._used)
            draft.replace(self._path)


def _read(path: Path) -> dict[str, str]:
    """What was saved; nothing if it cannot be read or is something else."""
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    entries = saved.items() if isinstance(saved, dict) else ()
    return {key: entry for key, entry in entries if isinstance(entry, str)}
