"""Errors of the disk are one line for those that a user can mend, and stay themselves otherwise."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from biomistral.disk import plain_os_errors
from biomistral.errors import InputError


def fail(error: Exception) -> None:
    with plain_os_errors(Path("out")):
        raise error


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "^out: no space left on the disk; free some or choose another output"),
        (errno.EDQUOT, "^out: no space left"),
        (errno.EROFS, "^file: cannot be used"),
        (errno.EMFILE, "^file: cannot be opened, too many files are open; raise the limit"),
    ],
)
def test_what_can_be_mended_is_one_line(number: int, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        fail(OSError(number, os.strerror(number), "file"))
    assert "\n" not in str(caught.value)


def test_a_full_disk_in_words_is_understood() -> None:
    with pytest.raises(InputError, match="no space left"):
        fail(RuntimeError("writer: No space left on device"))


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "x"), ValueError("x")])
def test_errors_of_ours_stay_what_they_are(error: Exception) -> None:
    with pytest.raises(type(error)):
        fail(error)
