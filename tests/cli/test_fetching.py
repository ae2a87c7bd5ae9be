from __future__ import annotations

import functools
import hashlib
import http.server
import json
import threading
from pathlib import Path

import pytest


@pytest.fixture
def ids(tmp_path: Path) -> Path:
    path = tmp_path / "ids.txt"
    path.write_text("PMC1\n")
    return path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give either --ids (a file of ids) or --inventory"),
        (["--ids", "{ids}", "--inventory", "{ids}"], "give either --ids"),
        (["--ids", "{ids}", "--licences", "CC-BY,GPL"], "'GPL' is no licence; allowed are CC0"),
        (["--ids", "{ids}", "--licences", ","], "'nothing' is no licence"),
        (["--ids", "{ids}", "--base-url", "pmc"], "is no address; write it like"),
        (["--inventory", "{ids}"], "no article is named"),
    ],
)
def test_what_cannot_be_fetched_is_one_clear_line(
    command, ids: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    finished = command("corpus", "fetch", tmp_path / "out", *(w.format(ids=ids) for w in words))
    assert finished.status == 2
    assert message in finished.err
    assert finished.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_there_is_a_usage_error(command, tmp_path: Path) -> None:
    finished = command("corpus", "fetch", tmp_path / "out", "--ids", tmp_path / "none")
    assert finished.status == 2
    assert "does not exist" in finished.err


def test_a_report_of_what_is_no_corpus_is_one_clear_line(command, tmp_path: Path) -> None:
    finished = command("corpus", "report", tmp_path, "--out", tmp_path / "page.html")
    assert finished.status == 2
    assert "is no corpus" in finished.err


def test_what_a_server_has_is_fetched_and_counted(command, tmp_path: Path) -> None:
    xml = b"<article><body><p>Bark.</p></body></article>"
    for number, code in ((1, "CC BY"), (2, "CC BY-NC")):
        folder = tmp_path / "bucket" / f"PMC{number}.1"
        folder.mkdir(parents=True)
        url = f"https://example.org/a.xml?md5={hashlib.md5(xml).hexdigest()}"
        facts = {"pmcid": f"PMC{number}", "version": 1, "license_code": code, "is_retracted": False}
        (folder / f"PMC{number}.1.json").write_text(json.dumps({**facts, "xml_url": url}))
        (folder / f"PMC{number}.1.xml").write_bytes(xml)
    (tmp_path / "ids").write_text("PMC1.1\nPMC2.1\n")
    handler = functools.partial(_Quiet, directory=str(tmp_path / "bucket"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        finished = command(
            "corpus", "fetch", tmp_path / "out", "--ids", tmp_path / "ids", "--base-url", address
        )
        server.shutdown()
    assert finished.status == 0, finished.err
    assert "2 articles; versions: fetched 1, licence 1" in finished.out
    assert (tmp_path / "out" / "PMC1.1" / "PMC1.1.xml").read_bytes() == xml
    assert not (tmp_path / "out" / "PMC2.1" / "PMC2.1.xml").exists()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass
