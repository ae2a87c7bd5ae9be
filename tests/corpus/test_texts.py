from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from biomistral.corpus import files
from biomistral.corpus.documents import Document
from biomistral.corpus.texts import read_texts


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
    assert (two.id, two.declared_language, two.needs_licence) == ("a.jsonl:3", None, False)
    assert (three.licence, three.needs_licence) == (None, True)


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
        ("c.jsonl:1", "no_text"), ("c.jsonl:2", "no_text"), ("c.jsonl:3", "not_well_formed"),
        ("c.jsonl:4", "not_utf8"), ("c.jsonl:5", "empty"), ("c.jsonl:6", "not_well_formed"),
        ("d.txt", "empty"), ("e.txt.gz", "not_readable"),
    ]  # fmt: skip


def test_a_gzip_bomb_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 1000)
    settings = texts(tmp_path, a_txt_gz=gzip.compress(b"x" * 1001))
    assert [d.problem for d in read_all(settings)] == ["too_large"]


def test_a_lone_surrogate_cannot_break_the_output(tmp_path: Path) -> None:
    (document,) = read_all(texts(tmp_path, a_jsonl=b'{"text": "a\\ud800b"}'))
    document.text.encode()
