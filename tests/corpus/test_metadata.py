from __future__ import annotations

import json

import pytest

from biomistral.corpus.files import UnreadableError
from biomistral.corpus.metadata import parse_file_list, parse_metadata

FACTS = {
    "pmcid": "PMC12", "version": 2, "pmid": 77, "doi": "10.1/AB", "license_code": "CC BY",
    "is_retracted": False, "is_historical_ocr": False, "xml_url": "https://example.org/a.xml?md5=0",
}  # fmt: skip


def test_facts_of_an_object() -> None:
    found = parse_metadata(json.dumps(FACTS).encode())
    assert (found.pmcid, found.version, found.pmid, found.doi) == ("PMC12", 2, "77", "10.1/ab")
    assert (found.licence, found.source) == ("CC-BY", "metadata")
    assert not found.is_retracted
    assert not found.is_ocr


@pytest.mark.parametrize(
    ("code", "licence"),
    [("CC0", "CC0"), ("CC BY-SA", "CC-BY-SA"), ("CC BY-NC-ND", "CC-BY-NC-ND"), ("TDM", None), (None, None), (7, None)],
)  # fmt: skip
def test_only_public_licences_have_a_name(code: object, licence: str | None) -> None:
    assert parse_metadata(json.dumps({**FACTS, "license_code": code}).encode()).licence == licence


@pytest.mark.parametrize("flag", [True, "true", "yes", 1, "retracted"])
def test_a_flag_that_is_not_a_plain_no_counts(flag: object) -> None:
    facts = {**FACTS, "is_retracted": flag, "is_historical_ocr": flag}
    found = parse_metadata(json.dumps(facts).encode())
    assert found.is_retracted
    assert found.is_ocr


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cannot be read"),
        (b"<html>503</html>", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b"[1]", "no field pmcid"),
        (b"\xff", "cannot be read"),
        (b'{"pmcid": "PMC1", "is_retracted": false}', "no field license_code"),
        (b'{"pmcid": "PMC1", "license_code": "CC0"}', "no field is_retracted"),
    ],
)
def test_metadata_that_cannot_be_trusted_have_a_reason(data: bytes, message: str) -> None:
    with pytest.raises(UnreadableError, match=message) as caught:
        parse_metadata(data)
    assert caught.value.reason == "metadata"


def test_a_file_list_is_read_by_the_names_of_its_columns() -> None:
    lines = [
        "Article File,Article Citation,AccessionID,LastUpdated (YYYY-MM-DD HH:MM:SS),PMID,License,Retracted\n",
        'PMC003xxxxxx/PMC1.xml,"Bark, a history. 2001",PMC1,2020-01-01 00:00:00,5,CC BY,no\n',
        "PMC003xxxxxx/PMC2.xml,Rest,PMC2,2020-01-01 00:00:00,,NO-CC CODE,yes\n",
        "\n",
        "PMC003xxxxxx/PMC3.xml,Short\n",
    ]
    found = parse_file_list(lines)
    assert [(f.pmcid, f.pmid, f.licence, f.is_retracted) for f in found.values()] == [
        ("PMC1", "5", "CC-BY", False),
        ("PMC2", "", None, True),
        ("", "", None, False),
    ]
    older = ["File,License\n", "Article File,Accession ID,License\n"]
    with pytest.raises(UnreadableError, match="no columns Article File and License"):
        parse_file_list(older)
    assert parse_file_list(["Article File,Accession ID,License\n", "a.nxml,PMC9,CC0\n"])[
        "a.nxml"
    ].pmcid == ("PMC9")
