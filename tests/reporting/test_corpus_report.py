from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from biomistral.artifacts import Origin, create
from biomistral.errors import InputError
from biomistral.reporting.corpus_report import corpus_document, read_tally, write_corpus_report

Make = Callable[..., Path]


def line(number: int, reason: str = "", **changes: Any) -> dict[str, Any]:
    return {
        "id": f"PMC{number}", "dropped": reason, "detail": "", "licence": "CC-BY", "language": "en",
        "year": 2000 + number % 3, "journal": f"Annals {number % 40}", "title": f"Bark {number}",
        "num_words": 100, "num_tokens": 0 if reason else 100 * number, "opening": f"Text {number}",
        **changes,
    }  # fmt: skip


@pytest.fixture
def corpus(tmp_path: Path) -> Make:
    """Return a function that writes a corpus of lines, without its tokens."""

    def make(lines: list[dict[str, Any]]) -> Path:
        out = tmp_path / "corpus"
        with create(out, Origin("tokens", "valley", {})) as draft:
            pq.write_table(pa.Table.from_pylist(lines), draft.folder / "documents.parquet")
        return out

    return make


LINES = [
    *(line(n) for n in range(50)),
    *(line(n, "too_short") for n in range(50, 59)),
    line(60, "licence_unclear", licence="", opening=""),
    line(61, "language", language="it", year=None, journal=None),
    line(62, "not_well_formed", licence=None, language=None, detail="line 3 <b>", opening="", title=""),
]  # fmt: skip


def table_of(folder: Path, id_: str) -> dict[str, list[str]]:
    document = corpus_document("valley", read_tally(folder / "documents.parquet"))
    (table,) = [table for table in document.tables if table.id == id_]
    return {row.label: [cell.text for cell in row.cells] for row in table.rows}


def test_each_document_is_counted_once_under_its_reason(corpus: Make) -> None:
    reasons = table_of(corpus(LINES), "reasons")
    assert list(reasons) == ["kept", "too_short", "language", "licence_unclear", "not_well_formed"]
    assert [int(cells[0]) for cells in reasons.values()] == [50, 9, 1, 1, 1]
    assert reasons["kept"][1] == "80.6"


def test_kept_and_dropped_are_counted_apart(corpus: Make) -> None:
    folder = corpus(LINES)
    assert table_of(folder, "by-licence") == {
        "CC-BY": ["50", "100.0", "10"],
        "none or unclear": ["0", "0.0", "2"],
    }
    assert table_of(folder, "by-language")["English (en)"] == ["50", "100.0", "10"]
    assert next(iter(table_of(folder, "by-year"))) == "2002"
    journals = table_of(folder, "by-journal")
    assert len(journals) == 31
    assert list(journals)[-1].endswith("others")
    assert sum(int(cells[0]) for cells in journals.values()) == 50


def test_lengths_are_counted_up_to_and_including_a_bound(corpus: Make) -> None:
    lines = [line(n, num_tokens=size) for n, size in enumerate((128, 129, 2048, 2049, 99_999))]
    lengths = table_of(corpus(lines), "by-length")
    counted = {label: int(cells[0]) for label, cells in lengths.items() if cells[0] != "0"}
    assert counted == {
        "0 to 128": 1, "129 to 512": 1, "1,025 to 2,048": 1, "2,049 to 4,096": 1, "32,769 and more": 1,
    }  # fmt: skip


def test_samples_do_not_depend_on_the_order_of_lines(corpus: Make, tmp_path: Path) -> None:
    many = [line(n) for n in range(500)]
    first = table_of(corpus(many), "samples-kept")
    assert len(first) == 8
    assert first == table_of(corpus(many[::-1]), "samples-kept")


def test_the_page_needs_nothing_else_and_escapes_what_it_shows(
    corpus: Make, tmp_path: Path
) -> None:
    hostile = line(99, "markup", title="<script>alert(1)</script>", opening="<img src=x onerror=y>")
    page = write_corpus_report(corpus([*LINES, hostile]), tmp_path / "new" / "page.html")
    text = page.read_text(encoding="utf-8")
    assert "Corpus valley" in text
    assert "<script>alert(1)" not in text
    assert "<img src=x" not in text
    assert "line 3 &lt;b&gt;" in text
    assert 'src="http' not in text
    assert page.read_bytes() == write_corpus_report(tmp_path / "corpus", page).read_bytes()


def test_a_corpus_that_kept_nothing_has_a_page(corpus: Make, tmp_path: Path) -> None:
    page = write_corpus_report(corpus([line(1, "no_body")]), tmp_path / "page.html")
    assert "0 of 1 documents were kept" in page.read_text(encoding="utf-8")


def test_what_is_no_corpus_is_named(corpus: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no corpus; name the folder of packed rows"):
        write_corpus_report(tmp_path, tmp_path / "page.html")
    folder = corpus([{"id": "PMC1", "dropped": ""}])
    with pytest.raises(InputError, match="has no column detail; build it again"):
        write_corpus_report(folder, tmp_path / "page.html")
    (folder / "documents.parquet").write_bytes(b"half")
    with pytest.raises(InputError, match="cannot be read"):
        write_corpus_report(folder, tmp_path / "page.html")
