from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from biomistral.corpus import sources
from biomistral.corpus.sources import find_sources, read_documents
from biomistral.errors import InputError
from biomistral.recipe.settings import CorpusSettings


def texts(tmp_path: Path, **files: bytes) -> CorpusSettings:
    names = {name.replace("_", "."): data for name, data in files.items()}
    for name, data in names.items():
        (tmp_path / name).write_bytes(data)
    return CorpusSettings(texts=[str(tmp_path / name) for name in names])


def test_files_come_sorted_and_once(articles_folder: Path) -> None:
    settings = CorpusSettings(
        articles=[
            f"{articles_folder}/**/*.nxml",
            f"{articles_folder}/**/*.xml",
            f"{articles_folder}/deep/*",
        ]
    )
    names = [source.name for source in find_sources(settings)[0]]
    assert names == [
        "5.nxml", "6-broken.xml", "7-short.xml", "8-copy.xml", "9-nc.xml",
        "deep/1.xml", "deep/2.xml", "deep/3.xml", "deep/4.xml",
    ]  # fmt: skip


def test_a_pattern_without_files_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"corpus 'corpus', articles: the pattern .*\*\.xml' matches no files"
    ):
        find_sources(CorpusSettings(articles=[f"{tmp_path}/*.xml"]))


def test_a_pattern_with_files_of_another_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    with pytest.raises(
        InputError, match=r"matches 1 files, none of a kind.*allowed are \.xml, \.nxml"
    ):
        find_sources(CorpusSettings(articles=[f"{tmp_path}/*"]))


def test_a_packed_article_is_the_article(articles_folder: Path, tmp_path: Path) -> None:
    data = (articles_folder / "deep" / "1.xml").read_bytes()
    (tmp_path / "1.xml.gz").write_bytes(gzip.compress(data))
    plain = next(read_documents(CorpusSettings(articles=[f"{articles_folder}/deep/1.xml"])))
    packed = next(read_documents(CorpusSettings(articles=[f"{tmp_path}/1.xml.gz"])))
    assert packed.text == plain.text
    assert (packed.id, packed.file) == ("PMC1", "1.xml.gz")


def test_a_text_file_is_one_document(tmp_path: Path) -> None:
    settings = texts(tmp_path, a_txt="\ufeffOne.\r\n\r\nTwo e\u0301.\n".encode())
    (document,) = read_documents(settings)
    assert (document.id, document.text) == ("a.txt", "One.\n\nTwo é.")
    assert not document.needs_licence


def test_a_line_is_a_document_with_its_fields(tmp_path: Path) -> None:
    lines = [
        {"text": "One.", "id": "first", "language": "pt-BR", "licence": "CC BY 4.0", "title": "T"},
        {"text": "Two."},
        {"text": "Three.", "licence": "my own"},
    ]
    data = "\n\n".join(json.dumps(line) for line in lines).encode()
    one, two, three = read_documents(texts(tmp_path, a_jsonl=data))
    assert (one.id, one.language, one.licence, one.title) == ("first", "pt", "CC-BY", "T")
    assert (two.id, two.language, two.needs_licence) == ("a.jsonl:3", None, False)
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
    problems = [(d.id, d.problem) for d in read_documents(settings)]
    assert problems == [
        ("a.txt", "not_utf8"), ("b.txt.gz", "not_readable"),
        ("c.jsonl:1", "no_text"), ("c.jsonl:2", "no_text"), ("c.jsonl:3", "not_well_formed"),
        ("c.jsonl:4", "not_utf8"), ("c.jsonl:5", "empty"), ("c.jsonl:6", "not_well_formed"),
        ("d.txt", "empty"), ("e.txt.gz", "not_readable"),
    ]  # fmt: skip


def test_a_gzip_bomb_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_FILE_BYTES", 1000)
    settings = texts(tmp_path, a_txt_gz=gzip.compress(b"x" * 1001))
    assert [d.problem for d in read_documents(settings)] == ["too_large"]


def test_a_lone_surrogate_cannot_break_the_output(tmp_path: Path) -> None:
    (document,) = read_documents(texts(tmp_path, a_jsonl=b'{"text": "a\\ud800b"}'))
    document.text.encode()


def test_progress_tells_files(articles_folder: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    settings = CorpusSettings(articles=[f"{articles_folder}/deep/*.xml"])
    list(read_documents(settings, lambda done, total, name: calls.append((done, total, name))))
    assert calls[0] == (0, 4, "1.xml")
    assert calls[-1] == (3, 4, "4.xml")
