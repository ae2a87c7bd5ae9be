"""The layout of the bucket on a server of this machine that is as unkind as servers are."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from biomistral.corpus.fetching import INDEX, fetch, read_ids, read_inventory
from biomistral.corpus.polite import Client, Limiter
from biomistral.corpus.sources import list_shards, read_shard
from biomistral.errors import InputError
from biomistral.recipe.settings import CorpusSettings

BY = ["CC0", "CC-BY"]


class Bucket:
    """Objects by key, how often each was asked for, and what to do wrong."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.asked: Counter[str] = Counter()
        self.faults: dict[str, list[str]] = {}

    def put(self, name: str, xml: bytes, **facts: Any) -> None:
        pmcid, version = name.split(".")
        known = {
            "pmcid": pmcid, "version": int(version), "license_code": "CC BY", "is_retracted": False,
            "is_historical_ocr": False, "xml_url": f"https://x/{name}.xml?md5={hashlib.md5(xml).hexdigest()}",
        }  # fmt: skip
        self.objects[f"{name}/{name}.json"] = json.dumps({**known, **facts}).encode()
        self.objects[f"{name}/{name}.xml"] = xml

    def listing(self, prefix: str) -> bytes:
        keys = "".join(
            f"<Contents><Key>{key}</Key></Contents>"
            for key in sorted(self.objects)
            if key.startswith(prefix)
        )
        return (
            f'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{keys}</ListBucketResult>'
        ).encode()


@pytest.fixture
def bucket(article: Callable[..., bytes]) -> Bucket:
    bucket = Bucket()
    text = lambda n: article(pmcid=f"PMC{n}", title=f"Bark {n}")  # noqa: E731
    bucket.put("PMC1.1", text(1) + b"\n")
    bucket.put("PMC1.2", text(1))
    bucket.put("PMC1.3", text(1), is_retracted=True)
    bucket.put("PMC2.1", text(2), license_code="CC BY-NC")
    bucket.put("PMC3.1", text(3), is_historical_ocr=True)
    bucket.put("PMC12.1", text(12))
    return bucket


@pytest.fixture
def client(bucket: Bucket) -> Iterator[Client]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            key = self.path.lstrip("/")
            bucket.asked[key] += 1
            fault = bucket.faults.get(key) and bucket.faults[key].pop(0)
            body = bucket.objects.get(key)
            if key.startswith("?list-type=2&prefix="):
                body = bucket.listing(key.removeprefix("?list-type=2&prefix="))
            if fault == "drop":
                self.close_connection = True
                return
            self.send_response(503 if fault == "busy" else 404 if body is None else 200)
            body = body or b""
            self.send_header("Content-Length", str(len(body) * 2 if fault == "lie" else len(body)))
            self.send_header("ETag", f'"{hashlib.md5(body).hexdigest()}"')
            self.end_headers()
            self.wfile.write(b"?" * len(body) if fault == "garble" else body)
            self.close_connection = fault == "lie"

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    yield Client(address, Limiter(10_000), 3, backoff_seconds=0.01)
    server.shutdown()
    server.server_close()


ALL: dict[str, list[int]] = {"PMC1": [], "PMC2": [], "PMC3": [], "PMC12": [], "PMC99": []}


def index(out: Path) -> dict[str, str]:
    lines = (out / INDEX).read_text().splitlines()[1:]
    return {line.split(",")[0]: line.split(",")[1] for line in lines}


def files(out: Path) -> set[str]:
    return {path.name for path in out.rglob("*") if path.is_file()}


def test_only_what_is_permitted_is_fetched_and_every_version_is_told(
    bucket: Bucket, client: Client, tmp_path: Path
) -> None:
    counts = fetch(ALL, tmp_path, BY, client)
    assert index(tmp_path) == {
        "PMC1.1": "older_version", "PMC1.2": "fetched", "PMC1.3": "retracted", "PMC2.1": "licence",
        "PMC3.1": "ocr", "PMC12.1": "fetched", "PMC99": "missing",
    }  # fmt: skip
    assert counts["fetched"] == 2
    assert {key for key in bucket.asked if key.endswith(".xml")} == {
        "PMC1.2/PMC1.2.xml",
        "PMC12.1/PMC12.1.xml",
    }
    settings = CorpusSettings(articles=[str(tmp_path)])
    (shard,) = list_shards(settings)
    assert [item.id for item in read_shard(shard, settings)] == ["PMC1", "PMC12"]  # type: ignore[union-attr]


def test_a_second_run_asks_for_nothing_that_is_there(
    bucket: Bucket, client: Client, tmp_path: Path
) -> None:
    articles = {"PMC1": [1, 2, 3], "PMC12": [1]}
    fetch(articles, tmp_path, BY, client)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    bucket.asked.clear()
    fetch(articles, tmp_path, BY, client)
    assert bucket.asked == Counter()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("fault", ["drop", "lie", "garble", "busy"])
def test_an_unkind_server_changes_nothing(
    bucket: Bucket, client: Client, tmp_path: Path, fault: str
) -> None:
    fetch(ALL, tmp_path / "kind", BY, client)
    bucket.faults = {key: [fault, fault] for key in bucket.objects}
    fetch(ALL, tmp_path / "unkind", BY, client)
    for path in (tmp_path / "kind").rglob("*.*"):
        if path.is_file():
            other = tmp_path / "unkind" / path.relative_to(tmp_path / "kind")
            assert other.read_bytes() == path.read_bytes()
    assert files(tmp_path / "kind") == files(tmp_path / "unkind")


def test_what_cannot_be_had_is_named_and_the_next_run_goes_on(
    bucket: Bucket, client: Client, tmp_path: Path
) -> None:
    bucket.faults = {"PMC12.1/PMC12.1.xml": ["garble"] * 3}
    with pytest.raises(InputError, match=r"1 of 7 objects could not.*PMC12\.1 .*the MD5 is.*again"):
        fetch(ALL, tmp_path, BY, client)
    assert index(tmp_path)["PMC12.1"] == "failed"
    assert "PMC12.1.xml" not in files(tmp_path)
    bucket.asked.clear()
    fetch(ALL, tmp_path, BY, client)
    assert index(tmp_path)["PMC12.1"] == "fetched"
    assert bucket.asked["PMC1.2/PMC1.2.xml"] == 0


def test_a_damaged_file_is_fetched_again(bucket: Bucket, client: Client, tmp_path: Path) -> None:
    fetch(ALL, tmp_path, BY, client)
    (tmp_path / "PMC12.1" / "PMC12.1.xml").write_bytes(b"half")
    fetch(ALL, tmp_path, BY, client)
    assert (tmp_path / "PMC12.1" / "PMC12.1.xml").read_bytes() == bucket.objects[
        "PMC12.1/PMC12.1.xml"
    ]


def test_metadata_are_fetched_again_if_asked_for(
    bucket: Bucket, client: Client, article, tmp_path: Path
) -> None:
    fetch(ALL, tmp_path, BY, client)
    bucket.put("PMC12.1", article(pmcid="PMC12"), is_retracted=True)
    fetch(ALL, tmp_path, BY, client)
    assert index(tmp_path)["PMC12.1"] == "fetched"
    fetch(ALL, tmp_path, BY, client, refresh=True)
    assert index(tmp_path)["PMC12.1"] == "retracted"


def test_metadata_of_something_else_fetch_nothing(
    bucket: Bucket, client: Client, tmp_path: Path
) -> None:
    bucket.objects["PMC12.1/PMC12.1.json"] = bucket.objects["PMC1.2/PMC1.2.json"]
    with pytest.raises(InputError, match="of another version"):
        fetch({"PMC12": [1]}, tmp_path, BY, client)
    assert files(tmp_path) == {INDEX}


def test_the_index_does_not_depend_on_the_number_of_connections(
    client: Client, tmp_path: Path
) -> None:
    for connections in (1, 7):
        fetch(ALL, tmp_path / str(connections), BY, client, connections=connections)
    assert (tmp_path / "1" / INDEX).read_bytes() == (tmp_path / "7" / INDEX).read_bytes()


def test_ids_are_read_with_or_without_a_version(tmp_path: Path) -> None:
    (tmp_path / "ids").write_text("\ufeffPMC1\nPMC2.3\n2.1\n\n77\n")
    assert read_ids(tmp_path / "ids") == {"PMC1": [], "PMC2": [3, 1], "PMC77": []}
    (tmp_path / "ids").write_text("PMC1\n10.1/abc\n")
    with pytest.raises(InputError, match=r"entry 2 is '10.1/abc', no id of PubMed Central"):
        read_ids(tmp_path / "ids")


def test_ids_that_are_no_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "ids").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "ids", tmp_path / "none"):
        with pytest.raises(InputError, match="cannot be read as a file of ids"):
            read_ids(path)


def test_an_inventory_names_each_version_once(tmp_path: Path) -> None:
    rows = [
        '"pmc-oa-opendata","PMC1.1/PMC1.1.xml","2026-01-01","a"',
        '"pmc-oa-opendata","PMC1.1/PMC1.1.json","2026-01-01","b"',
        '"pmc-oa-opendata","metadata/PMC1.1.json","2026-01-01","b"',
        '"pmc-oa-opendata","metadata/PMC1.2.json","2026-01-01","c"',
        '"pmc-oa-opendata","README.txt","2026-01-01","d"',
    ]
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress("\n".join(rows).encode()))
    assert read_inventory(tmp_path / "a.csv.gz") == {"PMC1": [1, 2]}
    (tmp_path / "a.csv.gz").write_bytes(b"no gzip")
    with pytest.raises(InputError, match="cannot be read as an inventory"):
        read_inventory(tmp_path / "a.csv.gz")


def test_nothing_to_fetch_is_an_error(client: Client, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no article is named"):
        fetch({}, tmp_path / "out", BY, client)
