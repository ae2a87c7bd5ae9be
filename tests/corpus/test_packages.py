"""Packages are streams: damage and traps have a reason, and nothing is written anywhere."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from biomistral.corpus import files
from biomistral.corpus.files import UnreadableError
from biomistral.corpus.packages import file_list_of, members_of

XML = (".xml", ".nxml")
Make = Callable[..., Path]


@pytest.fixture
def package(tmp_path: Path) -> Make:
    """Return a function that writes a package of members, given as name and bytes or a header."""

    def make(*members: tuple[str, bytes] | tarfile.TarInfo, name: str = "a.tar.gz") -> Path:
        path = tmp_path / name
        with tarfile.open(path, "w:gz" if name.endswith("gz") else "w") as archive:
            for member in members:
                if isinstance(member, tarfile.TarInfo):
                    archive.addfile(member)
                else:
                    header = tarfile.TarInfo(member[0])
                    header.size = len(member[1])
                    archive.addfile(header, io.BytesIO(member[1]))
        return path

    return make


def read(path: Path) -> list[tuple[str, bytes | str]]:
    """Names, and the bytes or the reason."""
    return [
        (name, data.reason if isinstance(data, UnreadableError) else data)
        for name, data in members_of(path, XML)
    ]


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar", "a.tgz"])
def test_members_come_in_order_and_other_files_are_passed_over(package: Make, name: str) -> None:
    path = package(("x/2.nxml", b"two"), ("x/fig.jpg", b"0" * 999), ("x/1.xml", b"one"), name=name)
    assert read(path) == [("x/2.nxml", b"two"), ("x/1.xml", b"one")]


def header(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    member.linkname = target
    return member


def test_what_leaves_the_package_is_refused_and_the_rest_is_read(
    package: Make, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    path = package(
        ("../../evil.xml", b"<a/>"),
        ("/etc/evil.xml", b"<a/>"),
        ("a/../../evil.xml", b"<a/>"),
        ("..\\evil.xml", b"<a/>"),
        header("link.xml", tarfile.SYMTYPE, "/etc/passwd"),
        header("hard.xml", tarfile.LNKTYPE, "../1.xml"),
        header("device.xml", tarfile.CHRTYPE),
        header("pipe.xml", tarfile.FIFOTYPE),
        header("folder.xml", tarfile.DIRTYPE),
        ("good.xml", b"<a/>"),
    )
    found = read(path)
    assert [reason for _, reason in found[:-1]] == ["unsafe_member"] * 8
    assert found[-1] == ("good.xml", b"<a/>")
    assert sorted(tmp_path.rglob("*")) == sorted([*before, path]), "nothing is unpacked"


def test_a_member_past_the_limit_is_passed_over(
    package: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 1000)
    path = package(("big.xml", b"x" * 1001), ("small.xml", b"x"))
    assert read(path) == [("big.xml", "too_large"), ("small.xml", b"x")]


def test_a_package_cut_anywhere_says_so_after_what_was_whole(package: Make) -> None:
    data = package(*((f"{n}.xml", bytes(range(256)) * 40) for n in range(4))).read_bytes()
    path = package(name="b.tar.gz")
    for cut in range(0, len(data), 37):
        path.write_bytes(data[:cut])
        *whole, (name, reason) = read(path)
        assert (name, reason) == ("", "not_readable"), cut
        assert all(member == bytes(range(256)) * 40 for _, member in whole)


def test_damage_in_the_middle_is_not_the_end(package: Make) -> None:
    """The standard library stops at a bad header as if the archive were over."""
    path = package(*((f"{n}.xml", b"x" * 512) for n in range(3)), name="a.tar")
    data = bytearray(path.read_bytes())
    data[1024:1100] = b"\xff" * 76  # the second header
    path.write_bytes(data)
    assert read(path) == [("0.xml", b"x" * 512), ("", "not_readable")]
    path.write_bytes(bytes(data[:1024]))  # ends where a header should stand
    assert read(path) == [("0.xml", b"x" * 512), ("", "not_readable")]


def test_a_header_of_gigabytes_is_not_read_into_memory(tmp_path: Path) -> None:
    bomb = tarfile.TarInfo("x")
    bomb.type = tarfile.XHDTYPE
    bomb.size = 5_000_000_000
    (tmp_path / "a.tar").write_bytes(bomb.tobuf() + b"\0" * 10_000)
    assert read(tmp_path / "a.tar") == [("", "not_readable")]


@pytest.mark.parametrize("data", [b"", b"not gzip", gzip.compress(b""), gzip.compress(b"no tar")])
def test_what_is_no_package_has_a_reason(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.tar.gz").write_bytes(data)
    assert read(tmp_path / "a.tar.gz") == [("", "not_readable")]


def test_the_file_list_beside_a_package_is_found(tmp_path: Path) -> None:
    package = tmp_path / "oa_comm_xml.PMC003xxxxxx.baseline.2022-09-03.tar.gz"
    assert file_list_of(package) is None
    beside = tmp_path / "oa_comm_xml.PMC003xxxxxx.baseline.2022-09-03.filelist.csv"
    beside.write_text("Article File,License\n")
    assert file_list_of(package) == beside
