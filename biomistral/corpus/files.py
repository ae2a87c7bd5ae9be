"""Bytes of a file, unpacked, or one reason why not. Knows nothing about what they mean."""

from __future__ import annotations

import contextlib
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from biomistral.errors import InputError

# A file, once unpacked; the largest article of PMC known to us has 30 MB. Stops gzip bombs.
MAX_FILE_BYTES = 200_000_000


class UnreadableError(InputError):
    """One file or article cannot be used; ``reason`` is a code to count, ``detail`` the fault."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def read_bytes(path: Path) -> bytes:
    """Bytes of a file, unpacked.

    Raises ``UnreadableError`` with reason ``too_large`` or, if it is damaged, ``not_readable``.
    """
    with damage_named(), open_unpacked(path) as stream:
        data = stream.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise UnreadableError("too_large", f"more than {MAX_FILE_BYTES} bytes")
    return data


def open_unpacked(path: Path) -> IO[bytes]:
    """Open a file, through gzip if its name ends so."""
    return cast("IO[bytes]", gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


@contextlib.contextmanager
def damage_named() -> Iterator[None]:
    """Turn what damaged files raise into ``UnreadableError`` with reason ``not_readable``."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        detail = getattr(error, "strerror", None) or str(error)
        raise UnreadableError("not_readable", detail) from None
