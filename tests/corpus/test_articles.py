"""Articles from objects and packages: what the metadata say, and what of it is believed."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from biomistral.corpus.documents import Document, Dropped
from biomistral.corpus.sources import list_shards, read_shard, source_files
from biomistral.recipe.settings import CorpusSettings

Put = Callable[..., Path]
NC = "<license><license-p>for non-commercial use only</license-p></license>"


@pytest.fixture
def put(tmp_path: Path, article: Callable[..., bytes]) -> Put:
    """Return a function that writes one object: XML and JSON of a version of an article."""

    def put(number: int, version: int = 1, *, permissions: str = "", **facts: Any) -> Path:
        name = f"PMC{number}.{version}"
        folder = tmp_path / "pmc" / name
        folder.mkdir(parents=True)
        known = {
            "pmcid": f"PMC{number}", "version": version, "pmid": None, "doi": None,
            "license_code": "CC BY", "is_retracted": False, "is_historical_ocr": False,
        }  # fmt: skip
        (folder / f"{name}.json").write_text(json.dumps({**known, **facts}))
        data = article(
            pmcid=f"PMC{number}", permissions=permissions, title=f"Bark {number} {version}"
        )
        (folder / f"{name}.xml").write_bytes(data)
        return folder

    return put


def outcome(pattern: Path, **changes: Any) -> list[tuple[str, int | None, str]]:
    """Id, version and reason of each document below a folder."""
    settings = CorpusSettings(articles=[str(pattern)], **changes)
    items = [item for shard in list_shards(settings) for item in read_shard(shard, settings)]
    documents = [(i.document, i.reason) if isinstance(i, Dropped) else (i, "") for i in items]
    return [(document.id, document.version, reason) for document, reason in documents]


def test_the_newest_version_that_is_neither_retracted_nor_ocr_is_read(
    put: Put, tmp_path: Path
) -> None:
    put(1, 1)
    put(1, 2)
    put(1, 10)
    put(1, 11, is_retracted=True)
    put(2, 1)
    put(2, 2, is_historical_ocr=True)
    put(3, 1, is_retracted=True)
    assert sorted(outcome(tmp_path / "pmc")) == [
        ("PMC1", 1, "older_version"), ("PMC1", 2, "older_version"), ("PMC1", 10, ""),
        ("PMC1", 11, "retracted"), ("PMC2", 1, ""), ("PMC2", 2, "ocr"), ("PMC3", 1, "retracted"),
    ]  # fmt: skip


def test_versions_stay_in_one_shard(
    put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("biomistral.corpus.sources.SHARD_FILES", 2)
    for number in (1, 12, 2):
        for version in (1, 2, 3):
            put(number, version)
    shards = list_shards(CorpusSettings(articles=[str(tmp_path / "pmc")]))
    assert [len(shard.names) for shard in shards] == [3, 3, 3]
    assert [r for *_, r in outcome(tmp_path / "pmc")] == ["older_version", "older_version", ""] * 3


@pytest.mark.parametrize(
    ("code", "permissions", "reason"),
    [
        ("CC BY", "", ""),  # the text says nothing
        ("CC BY", "<license license-type='open-access'><license-p>Open.</license-p></license>", ""),
        ("CC BY", NC, "licence_vetoed"),
        ("CC BY", "<license license-type='cc-by-nc'/>", "licence_vetoed"),
        ("CC0", "<license license-type='cc-by'/>", "licence_vetoed"),
        ("CC BY-SA", "<license license-type='cc-by'/>", ""),
        ("CC BY", "<license license-type='cc-by'/><license license-type='cc0'/>", ""),
        ("CC BY-NC", "<license license-type='cc-by'/>", "licence_not_allowed"),
        (None, "<license license-type='cc-by'/>", "licence_unclear"),
        ("TDM", "<license license-type='cc-by'/>", "licence_unclear"),
    ],
)
def test_metadata_decide_the_licence_and_the_text_may_veto(
    put: Put, tmp_path: Path, code: str | None, permissions: str, reason: str
) -> None:
    put(1, license_code=code, permissions=permissions)
    assert outcome(tmp_path / "pmc") == [("PMC1", 1, reason)]


def test_the_flat_folder_of_metadata_is_found(put: Put, tmp_path: Path) -> None:
    folder = put(1, license_code="CC BY-NC")
    (tmp_path / "pmc" / "metadata").mkdir()
    (folder / "PMC1.1.json").rename(tmp_path / "pmc" / "metadata" / "PMC1.1.json")
    assert outcome(tmp_path / "pmc") == [("PMC1", 1, "licence_not_allowed")]


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"pmcid": "PMC2"}, "metadata_disagree"),
        ({"version": 3}, "metadata_disagree"),
    ],
)
def test_metadata_of_something_else_are_no_metadata(
    put: Put, tmp_path: Path, facts: dict[str, Any], reason: str
) -> None:
    file = put(1) / "PMC1.1.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **facts}))
    assert outcome(tmp_path / "pmc") == [("PMC1", 1, reason)]


def test_a_text_of_another_article_than_its_metadata_is_refused(
    put: Put, tmp_path: Path, article: Callable[..., bytes]
) -> None:
    folder = put(1)
    (folder / "PMC1.1.xml").write_bytes(article(pmcid="PMC9"))
    assert [reason for *_, reason in outcome(tmp_path / "pmc")] == ["metadata_disagree"]


def test_metadata_that_cannot_be_read_let_nothing_in(put: Put, tmp_path: Path) -> None:
    (put(1) / "PMC1.1.json").write_text("<html>503</html>")
    assert outcome(tmp_path / "pmc") == [("PMC1", 1, "metadata")]


def test_metadata_are_part_of_what_a_corpus_is_made_from(put: Put, tmp_path: Path) -> None:
    folder = put(1)
    settings = CorpusSettings(articles=[str(tmp_path / "pmc")])
    assert [path.name for _, path in source_files(settings)] == ["PMC1.1.xml", "PMC1.1.json"]
    before = list_shards(settings)
    (folder / "PMC1.1.json").write_text("{}")
    assert list_shards(settings) != before


# --- packages -------------------------------------------------------------------------------------


def pack(path: Path, **members: bytes) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(f"PMC000xxxxxx/{name}.xml")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def test_a_file_list_decides_for_a_package(tmp_path: Path, article: Callable[..., bytes]) -> None:
    articles = {f"PMC{n}": article(pmcid=f"PMC{n}", title=f"Bark {n}") for n in range(1, 7)}
    articles["PMC5"] = article(pmcid="PMC5", permissions=NC)
    pack(tmp_path / "oa.tar.gz", **articles)
    rows = [
        "Article File,AccessionID,License,Retracted",
        "PMC000xxxxxx/PMC1.xml,PMC1,CC BY,no",
        "PMC000xxxxxx/PMC2.xml,PMC2,CC BY,yes",
        "PMC000xxxxxx/PMC3.xml,PMC3,NO-CC CODE,no",
        "PMC000xxxxxx/PMC5.xml,PMC5,CC BY,no",
        "PMC000xxxxxx/PMC6.xml,PMC1,CC BY,no",
        "PMC000xxxxxx/PMC7.xml,PMC7,CC BY,no",
    ]
    (tmp_path / "oa.filelist.csv").write_text("\n".join(rows))
    assert [(id_, reason) for id_, _, reason in outcome(tmp_path / "oa.tar.gz")] == [
        ("PMC1", ""),
        ("PMC2", "retracted"),
        ("PMC3", "licence_unclear"),
        ("oa.tar.gz:PMC000xxxxxx/PMC4.xml", "not_in_file_list"),
        ("PMC5", "licence_vetoed"),
        ("oa.tar.gz:PMC000xxxxxx/PMC6.xml", "metadata_disagree"),
        ("oa.tar.gz:PMC000xxxxxx/PMC7.xml", "not_in_package"),
    ]


def test_without_a_file_list_the_articles_speak_for_themselves(
    tmp_path: Path, article: Callable[..., bytes]
) -> None:
    pack(tmp_path / "oa.tar.gz", a=article(pmcid="PMC1"), b=article(permissions=NC), c=b"<broken")
    assert [reason for *_, reason in outcome(tmp_path / "oa.tar.gz")] == [
        "", "licence_unclear", "not_well_formed",
    ]  # fmt: skip


def test_a_file_list_that_cannot_be_read_lets_nothing_in(
    tmp_path: Path, article: Callable[..., bytes]
) -> None:
    pack(tmp_path / "oa.tar.gz", a=article())
    (tmp_path / "oa.csv").write_bytes(b"\xff\xfe")
    assert [reason for *_, reason in outcome(tmp_path / "oa.tar.gz")] == ["file_list"]


def test_a_truncated_package_gives_what_was_whole_and_a_reason(
    tmp_path: Path, article: Callable[..., bytes]
) -> None:
    path = pack(tmp_path / "oa.tar.gz", a=article(pmcid="PMC1"), b=article(pmcid="PMC2"))
    path.write_bytes(path.read_bytes()[:-60])
    *_, last = outcome(path)
    assert last == ("oa.tar.gz", None, "not_readable")


def test_the_md5_of_the_xml_is_kept_to_compare_with_its_object(put: Put, tmp_path: Path) -> None:
    import hashlib

    folder = put(1)
    settings = CorpusSettings(articles=[str(tmp_path / "pmc")])
    (document,) = read_shard(list_shards(settings)[0], settings)
    assert isinstance(document, Document)
    data = (folder / "PMC1.1.xml").read_bytes()
    assert document.source_md5 == hashlib.md5(data).hexdigest()
