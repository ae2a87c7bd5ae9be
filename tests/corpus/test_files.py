from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from biomistral.corpus import files
from biomistral.corpus.files import UnreadableError, damage_named, read_bytes


def test_bytes_come_unpacked(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_bytes(b"bark")
    (tmp_path / "a.xml.gz").write_bytes(gzip.compress(b"bark"))
    assert read_bytes(tmp_path / "a.xml") == read_bytes(tmp_path / "a.xml.gz") == b"bark"


@pytest.mark.parametrize(
    "cut", [1, 9, -4], ids=["in the header", "in the data", "in the check sum"]
)
def test_a_truncated_gzip_is_not_readable(tmp_path: Path, cut: int) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"bark" * 100)[:cut])
    with pytest.raises(UnreadableError) as caught:
        read_bytes(tmp_path / "a.gz")
    assert caught.value.reason == "not_readable"


def test_a_file_past_the_limit_is_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 10)
    (tmp_path / "a.xml").write_bytes(b"x" * 11)
    with pytest.raises(UnreadableError, match="too_large: more than 10 bytes"):
        read_bytes(tmp_path / "a.xml")


def test_the_reason_never_tells_the_path() -> None:
    with pytest.raises(UnreadableError) as caught, damage_named():
        Path("/no/such/place").read_bytes()
    assert caught.value.detail == "No such file or directory"
