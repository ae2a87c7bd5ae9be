"""Errors of the disk are one line for those that a user can mend, and stay themselves otherwise."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from biomistral.disk import check_space, plain_os_errors
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


def test_space_is_looked_for_on_the_disk_of_a_folder_that_is_not_there_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    usage = type("Usage", (), {"free": 10**9})
    monkeypatch.setattr("shutil.disk_usage", lambda path: asked.append(path) or usage)
    out = tmp_path / "runs" / "out"
    check_space(out, 10**9, "checkpoints")
    assert asked == [tmp_path]
    with pytest.raises(InputError, match=r"out: checkpoints need 2\.0 GB, and 1\.0 GB are free on"):
        check_space(out, 2 * 10**9, "checkpoints")
