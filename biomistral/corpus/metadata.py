"""What the source says of an article beside its text: the object's JSON, or a package's file list.

PubMed Central keeps one object a version, ``PMC<id>.<version>/``, with a JSON file that gives
licence, retraction and text recognition (pmc.ncbi.nlm.nih.gov/tools/pmcaws). The former packages
came with a CSV file list. Either decides the licence; the article's own text may only veto it.

Knows nothing about which licences are wanted, nor where the files lie.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from biomistral.corpus.files import UnreadableError
from biomistral.corpus.licences import canonical

OBJECT_NAME = re.compile(r"PMC(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Metadata:
    """Facts about one version of an article."""

    source: Literal["metadata", "file_list"]
    licence: str | None  # of recipe.settings.Licence; None: none given, or not a public licence
    pmcid: str = ""
    version: int | None = None
    pmid: str = ""
    doi: str = ""
    is_retracted: bool = False
    is_ocr: bool = False


def parse_metadata(data: bytes) -> Metadata:
    """Read the JSON of an object. Raises ``UnreadableError`` with reason ``metadata``."""
    try:
        facts = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UnreadableError("metadata", f"its JSON cannot be read: {error}") from None
    if not isinstance(facts, dict) or "pmcid" not in facts:
        raise UnreadableError("metadata", "its JSON has no field pmcid")
    missing = [key for key in ("license_code", "is_retracted") if key not in facts]
    if missing:
        raise UnreadableError("metadata", f"its JSON has no field {missing[0]}")
    version = str(facts.get("version") or "")
    return Metadata(
        source="metadata",
        licence=_licence(facts["license_code"]),
        pmcid=_pmcid(facts["pmcid"]),
        version=int(version) if re.fullmatch(r"\d{1,6}", version) else None,
        pmid=_text(facts.get("pmid")),
        doi=_text(facts.get("doi")).lower(),
        is_retracted=_is_true(facts["is_retracted"]),
        is_ocr=_is_true(facts.get("is_historical_ocr")),
    )


def parse_file_list(lines: Iterable[str]) -> dict[str, Metadata]:
    """Read the CSV list of a package: facts by the name of the file in it.

    Columns are found by name: ``Article File``, ``AccessionID``, ``License``, ``Retracted`` and
    ``PMID``. Raises ``UnreadableError`` with reason ``file_list`` if file or licence are missing.
    """
    try:
        rows = csv.reader(lines)
        places = {_column(name): place for place, name in enumerate(next(rows, []))}
        if not {"articlefile", "license"} <= places.keys():
            raise UnreadableError("file_list", "it has no columns Article File and License")
        return dict(_of_row(row, places) for row in rows if row)
    except (csv.Error, UnicodeDecodeError) as error:
        raise UnreadableError("file_list", str(error)) from None


def _of_row(row: list[str], places: dict[str, int]) -> tuple[str, Metadata]:
    def cell(column: str) -> str:
        place = places.get(column, len(row))
        return row[place].strip() if place < len(row) else ""

    return cell("articlefile"), Metadata(
        source="file_list",
        licence=_licence(cell("license")),
        pmcid=_pmcid(cell("accessionid")),
        pmid=cell("pmid"),
        is_retracted=_is_true(cell("retracted")),
    )


def _column(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.split("(", maxsplit=1)[0].lower())


def _licence(code: Any) -> str | None:
    return canonical(code) if isinstance(code, str) else None


def _pmcid(value: Any) -> str:
    match = re.fullmatch(r"(?:PMC)?(\d+)(?:\.\d+)?", _text(value))
    return f"PMC{match[1]}" if match else ""


def _text(value: Any) -> str:
    return str(value).strip() if isinstance(value, str | int) else ""


def _is_true(value: Any) -> bool:
    """Any word but a plain no: what is not understood must not pass as unretracted."""
    return str(value or "").strip().lower() not in {"", "no", "n", "false", "0", "none", "null"}
