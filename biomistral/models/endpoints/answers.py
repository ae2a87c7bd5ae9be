"""Replies that were paid for, kept one a line: a file of JSON lines in the folder of answers.

A reply is found again by a digest of the address and everything that was sent. Each is written as it
comes, so a process that is killed loses those under way. Processes may share a file. What follows a
line that is not whole is lost with it only if the process died while it wrote: the next one cuts the
torn end off. Knows nothing about what replies mean.
"""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any


class Answers:
    """The replies of one file; nothing is written before the first is added."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, Any] = {}
        self._load()

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> Any:
        return self._known[key]

    def add(self, key: str, reply: Any) -> None:
        """Keep the JSON value ``reply``."""
        line = json.dumps([key, reply]).encode() + b"\n"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            stream.write(line)
            stream.flush()  # to the system: it survives the process, if not the machine
        self._known[key] = reply

    def _load(self) -> None:
        try:
            stream = self._path.open("r+b")
        except FileNotFoundError:
            return
        with stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            whole = 0
            for line in stream:
                if not line.endswith(b"\n"):
                    stream.truncate(whole)
                    break
                whole += len(line)
                try:
                    key, reply = json.loads(line)
                except (ValueError, TypeError):
                    continue  # asked again: cheaper than an error
                self._known[key] = reply
