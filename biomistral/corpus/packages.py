"""Articles out of a ``.tar.gz`` package, read as a stream: nothing is ever unpacked to disk.

Names in a package are labels only, but one that could leave a folder, a link or a device says that
the package is not what it claims, and is refused with its reason. Damage in the middle ends the
package with a reason: the standard library by itself would take it for the end. Knows nothing about
XML or what is kept.
"""

from __future__ import annotations

import contextlib
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, cast

import pyarrow as pa

from biomistral.corpus import files
from biomistral.corpus.files import UnreadableError
from biomistral.corpus.metadata import Metadata, parse_file_list

PACKAGE_SUFFIXES = (".tar.gz", ".tgz", ".tar", ".tar.zst")
_LIST_SUFFIXES = (".filelist.csv", ".file_list.csv", ".csv")
_MAX_HEADER_BYTES = 1_000_000  # of a long name or extended header, which are read whole


def file_list_of(package: Path) -> Path | None:
    """The CSV file beside a package that lists what is in it, if there is one."""
    suffix = next(s for s in PACKAGE_SUFFIXES if package.name.lower().endswith(s))
    stem = package.name[: -len(suffix)]
    beside = (package.with_name(stem + ending) for ending in _LIST_SUFFIXES)
    return next((path for path in beside if path.is_file()), None)


def read_file_list(path: Path) -> dict[str, Metadata]:
    """Facts by file name. Raises ``UnreadableError`` with reason ``file_list``."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return parse_file_list(stream)
    except OSError as error:
        raise UnreadableError("file_list", error.strerror or str(error)) from None


def members_of(
    package: Path, suffixes: tuple[str, ...]
) -> Iterator[tuple[str, bytes | UnreadableError]]:
    """Yield name and bytes of each file that ends in ``suffixes``, or why it was refused.

    Damage of the package itself comes last, under an empty name.
    """
    try:
        with files.damage_named(), _open(package) as archive:
            yield from _members(archive, suffixes)
    except UnreadableError as error:
        yield "", error


def _members(
    archive: tarfile.TarFile, suffixes: tuple[str, ...]
) -> Iterator[tuple[str, bytes | UnreadableError]]:
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]  # else it remembers all
        if member.isdir():
            continue
        name = member.name
        if fault := _fault(member):
            yield name, fault
        elif name.lower().endswith(suffixes):
            stream = archive.extractfile(member)
            yield name, stream.read() if stream else UnreadableError("unsafe_member", "no file")


def _fault(member: tarfile.TarInfo) -> UnreadableError | None:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name:
        return UnreadableError(
            "unsafe_member", f"its name {member.name[:100]!r} leaves the package"
        )
    if not member.isreg():
        return UnreadableError("unsafe_member", "is a link or a device, not a file")
    if member.size > files.MAX_FILE_BYTES:
        return UnreadableError("too_large", f"more than {files.MAX_FILE_BYTES} bytes")
    return None


class _Header(tarfile.TarInfo):
    """A header that is an error where it is damaged or absurd, never the silent end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        """Read one header, as the standard library asks for it."""
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise _damaged(str(error)) from None
        if not (header.isreg() or header.isdir()) and header.size > _MAX_HEADER_BYTES:
            raise _damaged("a header that is too large")
        return header


def _damaged(what: str) -> Exception:
    return cast("Exception", tarfile.SubsequentHeaderError(what))  # type: ignore[attr-defined]


@contextlib.contextmanager
def _open(package: Path) -> Iterator[tarfile.TarFile]:
    name = package.name.lower()
    compression: Any = (
        "zstd" if name.endswith(".zst") else None if name.endswith(".tar") else "gzip"
    )
    try:
        with (
            pa.input_stream(str(package), compression=compression) as stream,
            tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header) as archive,
        ):
            yield archive
    except tarfile.TarError as error:
        raise UnreadableError("not_readable", f"the package is damaged: {error}") from None
