"""Errors of the disk in words that a user can act on. Knows nothing about what is written."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from biomistral.errors import InputError

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # EFBIG: more than the limit of a file
_NO_ENTRY = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)
_TOO_MANY = (errno.EMFILE, errno.ENFILE)


@contextlib.contextmanager
def plain_os_errors(out: Path) -> Iterator[None]:
    """Raise ``InputError`` for what a user can mend while ``out`` is made.

    That is a full disk, a place that cannot be written to, and too many open files.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise _no_space(out) from error
        if error.errno in _TOO_MANY:
            raise InputError(
                f"{error.filename or out}: cannot be opened, too many files are open; raise the "
                "limit (ulimit -n 65536), then run the same command again"
            ) from error
        if error.errno in _NO_ENTRY:
            raise InputError(
                f"{error.filename or out}: cannot be used ({error.strerror}); "
                "choose another output folder or change its permissions"
            ) from error
        raise
    except Exception as error:
        # Rust and C++ writers (safetensors, Arrow) report a full disk in words only.
        if any(os.strerror(number) in str(error) for number in _NO_SPACE):
            raise _no_space(out) from error
        raise


def check_space(out: Path, needed_bytes: int, what: str) -> None:
    """Raise ``InputError`` if the disk that ``out`` will be on has less than ``needed_bytes`` free."""
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    free_bytes = shutil.disk_usage(there).free
    if free_bytes < needed_bytes:
        raise InputError(
            f"{out}: {what} need {needed_bytes / 1e9:,.1f} GB, and {free_bytes / 1e9:,.1f} GB are "
            "free on its disk; free some, or choose another output folder"
        )


def _no_space(out: Path) -> InputError:
    return InputError(
        f"{out}: no space left on the disk; free some or choose another output folder, then "
        "run the same command again"
    )


def flush(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
