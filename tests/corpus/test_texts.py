from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from biomistral.corpus import files
from biomistral.corpus.documents import Document
from biomistral.corpus.texts import parts_of, read_texts


def texts(tmp_path: Path, **named: bytes) -> list[Path]:
    paths = [tmp_path / name.replace("_", ".") for name in named]
    for path, data in zip(paths, named.values(), strict=True):
        path.write_bytes(data)
    return paths


def read_all(paths: list[Path]) -> list[Document]:
    return [document for path in paths for document in read_texts(path, path.name)]


def test_a_text_file_is_one_document(tmp_path: Path) -> None:
    settings = texts(tmp_path, a_txt="\ufeffOne.\r\n\r\nTwo e\u0301.\n".encode())
    (document,) = read_all(settings)
    assert (document.id, document.text) == ("a.txt", "One.\n\nTwo é.")
    assert not document.needs_licence


def test_a_line_is_a_document_with_its_fields(tmp_path: Path) -> None:
    lines = [
        {"text": "One.", "id": "first", "language": "pt-BR", "licence": "CC BY 4.0", "title": "T"},
        {"text": "Two."},
        {"text": "Three.", "licence": "my own"},
    ]
    data = "\n\n".join(json.dumps(line) for line in lines).encode()
    one, two, three = read_all(texts(tmp_path, a_jsonl=data))
    assert (one.id, one.declared_language, one.licence, one.title) == ("first", "pt", "CC-BY", "T")
    assert (two.id, two.declared_language, two.needs_licence) == ("a.jsonl:92", None, False)
    assert (three.licence, three.needs_licence) == (None, True)


def test_nought_is_an_id(tmp_path: Path) -> None:
    data = b'{"text": "One.", "id": 0}\n{"text": "Two.", "id": ""}'
    assert [document.id for document in read_all(texts(tmp_path, a_jsonl=data))] == [
        "0",
        "a.jsonl:26",
    ]


def test_each_thing_that_cannot_be_read_is_a_document_with_a_problem(tmp_path: Path) -> None:
    packed = gzip.compress(b"x" * 5000)
    settings = texts(
        tmp_path,
        a_txt=b"caf\xe9",
        b_txt_gz=packed[:-10],
        c_jsonl=b'{"text": 5}\n[1]\n{"text"\n\xff\n{"text": " "}\n' + b"[" * 100_000 + b"\n",
        d_txt=b"",
        e_txt_gz=b"no gzip",
    )
    problems = [(d.id, d.problem) for d in read_all(settings)]
    assert problems == [
        ("a.txt", "not_utf8"), ("b.txt.gz", "not_readable"),
        ("c.jsonl:0", "no_text"), ("c.jsonl:12", "no_text"), ("c.jsonl:16", "not_well_formed"),
        ("c.jsonl:24", "not_utf8"), ("c.jsonl:26", "empty"), ("c.jsonl:40", "not_well_formed"),
        ("d.txt", "empty"), ("e.txt.gz", "not_readable"),
    ]  # fmt: skip


def test_a_gzip_bomb_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 1000)
    settings = texts(tmp_path, a_txt_gz=gzip.compress(b"x" * 1001))
    assert [d.problem for d in read_all(settings)] == ["too_large"]


def test_a_lone_surrogate_cannot_break_the_output(tmp_path: Path) -> None:
    (document,) = read_all(texts(tmp_path, a_jsonl=b'{"text": "a\\ud800b"}'))
    document.text.encode()


def test_parts_of_lines_give_every_line_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [json.dumps({"text": "x" * (n * 7 % 50) + f"{n}"}) for n in range(60)]
    (path,) = texts(tmp_path, a_jsonl="\n".join(lines).encode())
    whole = [d.text for d in read_texts(path, "a.jsonl")]
    assert len(whole) == 60
    for size in (1, 7, 64, 500, 10_000):
        monkeypatch.setattr("biomistral.corpus.texts.PART_BYTES", size)
        parts = parts_of(path)
        documents = [d for start, stop in parts for d in read_texts(path, "a.jsonl", start, stop)]
        assert [d.text for d in documents] == whole
        assert [d.id for d in documents] == [d.id for d in read_texts(path, "a.jsonl")]


def test_a_row_is_a_document_with_its_fields(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    rows = {"body": ["One.", None, "Three."], "id": [7, 8, None], "licence": [None, None, "CC BY"]}
    pq.write_table(pa.table(rows), path)
    one, two, three = read_texts(path, "a.parquet", column="body")
    assert (one.id, one.text, one.needs_licence) == ("7", "One.", False)
    assert (two.id, two.problem) == ("a.parquet:1", "no_text")
    assert (three.id, three.licence) == ("a.parquet:2", "CC-BY")


def test_parts_of_rows_give_every_row_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"Text {n}." for n in range(50)]}), path, row_group_size=7)
    monkeypatch.setattr("biomistral.corpus.texts.PART_BYTES", 200)
    parts = parts_of(path)
    assert len(parts) > 2
    documents = [d for start, stop in parts for d in read_texts(path, "a.parquet", start, stop)]
    assert [d.id for d in documents] == [f"a.parquet:{n}" for n in range(50)]
    assert documents == list(read_texts(path, "a.parquet"))


@pytest.mark.parametrize(
    ("column", "data", "problem"),
    [
        ("text", b"PAR1 no", "not_readable"),
        ("text", b"", "not_readable"),
        ("body", None, "no_text"),
    ],
)
def test_a_table_that_cannot_be_used_has_a_reason(
    tmp_path: Path, column: str, data: bytes | None, problem: str
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["One."]}), path)
    if data is not None:
        path.write_bytes(data)
    assert parts_of(path) == [(0, None if data is not None else 1)]
    assert [d.problem for d in read_texts(path, "a", column=column)] == [problem]


def test_one_line_of_gigabytes_is_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 1000)
    (path,) = texts(tmp_path, a_jsonl=b'{"text": "One."}\n' + b" " * 2000)
    assert [d.problem for d in read_texts(path, "a.jsonl")] == ["", "too_large"]
