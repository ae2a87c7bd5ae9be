"""Mirror articles of PubMed Central as the objects they are there, as far as licences permit.

Of each article the JSON of every version is fetched first; only the text of the newest version that
is neither retracted nor recognized from scans, and only under a licence that is wanted, follows.
Files are whole or absent; what is there with the right MD5 is not fetched again, so the same
command goes on where it was interrupted. ``index.csv`` says what became of each version.

The layout is that of the bucket pmc-oa-opendata: ``PMC<id>.<version>/PMC<id>.<version>.json``.
Knows nothing about what is in the text.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from lxml import etree

from biomistral.corpus.files import UnreadableError
from biomistral.corpus.metadata import Metadata, parse_metadata
from biomistral.corpus.polite import Client, FetchError
from biomistral.disk import plain_os_errors
from biomistral.errors import InputError
from biomistral.progress import Progress, ignore

BASE_URL = "https://pmc-oa-opendata.s3.amazonaws.com"
INDEX = "index.csv"
_COLUMNS = ("object", "state", "licence", "xml_md5", "detail")
_OBJECT = re.compile(r"(PMC\d+)\.(\d+)")
_KEY = re.compile(r"(?:metadata/|PMC\d+\.\d+/)(PMC\d+)\.(\d+)\.json$")

Articles = dict[str, list[int]]  # PMCID -> versions; none known: the server is asked


@dataclass(frozen=True, slots=True)
class Line:
    """What became of one version: a line of the index."""

    name: str
    state: str  # fetched, or why not: licence, retracted, ocr, older_version, missing, failed
    licence: str = ""
    xml_md5: str = ""
    detail: str = ""


def read_ids(path: Path) -> Articles:
    """Read a file of ids, one a line: ``PMC123`` (all its versions) or ``PMC123.2``."""
    articles: Articles = {}
    try:
        lines = path.read_text("utf-8-sig").split()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a file of ids ({error})") from None
    for number, word in enumerate(lines, start=1):
        match = re.fullmatch(r"(?:PMC)?(\d+)(?:\.(\d+))?", word)
        if not match:
            raise InputError(
                f"{path}: entry {number} is {word[:50]!r}, no id of PubMed Central; write one a "
                "line, like PMC123 or PMC123.2"
            )
        versions = articles.setdefault(f"PMC{match[1]}", [])
        if match[2]:
            versions.append(int(match[2]))
    return articles


def read_inventory(path: Path) -> Articles:
    """Read an inventory of the bucket: CSV of Bucket, Key, LastModified, ETag, may be gzipped."""
    articles: Articles = {}
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as stream:
            for row in csv.reader(stream):
                match = _KEY.search(row[1]) if len(row) > 1 else None
                if match:
                    versions = articles.setdefault(match[1], [])
                    if int(match[2]) not in versions:
                        versions.append(int(match[2]))
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path}: cannot be read as an inventory ({error}); fetch it again"
        ) from None
    return articles


def fetch(
    articles: Articles,
    out: Path,
    licences: Iterable[str],
    client: Client,
    *,
    connections: int = 8,
    refresh: bool = False,
    progress: Progress = ignore,
) -> Counter[str]:
    """Fetch into ``out`` and return how many versions are in which state.

    ``refresh`` fetches metadata again that are there: an article may have been retracted since.

    Raises ``InputError`` if there is nothing to fetch, or, after all else was fetched and the index
    written, if something could not be had.
    """
    if not articles:
        raise InputError(f"{out}: no article is named; give --ids or --inventory with some")
    wanted = frozenset(licences)
    lines: list[Line] = []
    with plain_os_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        mirror = _Mirror(out, wanted, client, refresh)
        for number, found in enumerate(_in_threads(mirror, articles, connections), start=1):
            lines += found
            progress(number, len(articles), "articles")
        _write_index(out / INDEX, lines)
    counts = Counter(line.state for line in lines)
    failed = [line for line in lines if line.state == "failed"]
    if failed:
        raise InputError(
            f"{out}: {len(failed)} of {len(lines)} objects could not be fetched, the first "
            f"{failed[0].name} ({failed[0].detail}); run the same command again: the "
            f"{counts['fetched']} that are there stay"
        )
    return counts


@dataclass(frozen=True)
class _Mirror:
    """Where to, what of, and from where."""

    out: Path
    licences: frozenset[str]
    client: Client
    refresh: bool

    def article(self, pmcid: str, versions: list[int]) -> list[Line]:
        """Fetch what is wanted of one article; a line for each version."""
        try:
            known = sorted(versions or self._versions(pmcid))
        except FetchError as error:
            return [Line(pmcid, "failed", detail=str(error))]
        if not known:
            return [Line(pmcid, "missing")]
        facts = {number: self._metadata(f"{pmcid}.{number}") for number in known}
        usable = [n for n, f in facts.items() if isinstance(f, _Facts) and f.is_usable]
        newest = max(usable, default=None)
        return [
            found if isinstance(found, Line) else self._text(found, is_newest=number == newest)
            for number, found in facts.items()
        ]

    def _versions(self, pmcid: str) -> list[int]:
        """Ask the bucket which versions there are."""
        body = self.client.get(f"/?list-type=2&prefix={pmcid}.")
        try:
            keys = (
                []
                if body is None
                else etree.fromstring(body, _PARSER).iterfind("{*}Contents/{*}Key")
            )
        except etree.XMLSyntaxError as error:
            raise FetchError(
                f"{pmcid}: the list of its versions cannot be read: {error.msg}"
            ) from None
        matches = (_KEY.search(key.text or "") for key in keys)
        return sorted({int(match[2]) for match in matches if match and match[1] == pmcid})

    def _metadata(self, name: str) -> _Facts | Line:
        """Metadata of a version, from the disk if they are there; or why there are none."""
        path = self.out / name / f"{name}.json"
        try:
            if self.refresh or not path.is_file():
                body = self.client.get(f"/{name}/{name}.json")
                if body is None:
                    return Line(name, "missing")
                facts = _Facts.parse(name, body)
                _write(path, body)
                return facts
            return _Facts.parse(name, path.read_bytes())
        except (FetchError, UnreadableError) as error:
            return Line(name, "failed", detail=str(error))

    def _text(self, facts: _Facts, *, is_newest: bool) -> Line:
        name, licence = facts.name, facts.metadata.licence
        state = facts.fault or ("" if is_newest else "older_version")
        if not state and licence not in self.licences:
            state = "licence"
        if state:
            return Line(name, state, licence or "")
        path = self.out / name / f"{name}.xml"
        try:
            md5 = _digest(path)
            if not md5 or (facts.xml_md5 and md5 != facts.xml_md5):
                body = self.client.get(f"/{name}/{name}.xml", facts.xml_md5)
                if body is None:
                    return Line(name, "missing", licence or "")
                _write(path, body)
                md5 = _digest(path)
        except FetchError as error:
            return Line(name, "failed", licence or "", detail=str(error))
        return Line(name, "fetched", licence or "", md5)


@dataclass(frozen=True, slots=True)
class _Facts:
    """Metadata of one version, and the MD5 its text must have, if that is known."""

    name: str
    metadata: Metadata
    xml_md5: str | None

    @classmethod
    def parse(cls, name: str, data: bytes) -> _Facts:
        """Read the JSON. Raises ``UnreadableError`` if it is of something else."""
        metadata = parse_metadata(data)
        if name != f"{metadata.pmcid}.{metadata.version}":
            raise UnreadableError("metadata_disagree", f"{name}.json is of another version")
        url = json.loads(data).get("xml_url")
        given = parse_qs(urlsplit(url).query).get("md5") if isinstance(url, str) else None
        return cls(name, metadata, given[0].lower() if given else None)

    @property
    def fault(self) -> str:
        """Why its text is not wanted whatever its licence."""
        return "retracted" if self.metadata.is_retracted else "ocr" if self.metadata.is_ocr else ""

    @property
    def is_usable(self) -> bool:
        """Neither retracted nor recognized from scans."""
        return not self.fault


_PARSER = etree.XMLParser(resolve_entities=False, load_dtd=False, no_network=True)


def _in_threads(mirror: _Mirror, articles: Articles, connections: int) -> Iterator[list[Line]]:
    """Lines of each article, in the order they are done; few are under way at a time."""
    waiting = iter(articles.items())
    under_way: set[Future[list[Line]]] = set()
    executor = ThreadPoolExecutor(connections, thread_name_prefix="fetch")
    try:
        while True:
            while len(under_way) < 4 * connections and (item := next(waiting, None)):
                under_way.add(executor.submit(mirror.article, *item))
            if not under_way:
                return
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _write(path: Path, body: bytes) -> None:
    """Whole or absent: the name is given when all bytes are on the disk."""
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(body)
    part.replace(path)


def _digest(path: Path) -> str:
    return (
        hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() if path.is_file() else ""
    )


def _write_index(path: Path, lines: list[Line]) -> None:
    """Sorted by article and version, so that it does not depend on what came first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)

    def order(line: Line) -> tuple[int, int]:
        match = re.fullmatch(r"PMC(\d+)(?:\.(\d+))?", line.name)
        assert match, "names are ids"
        return int(match[1]), int(match[2] or 0)

    for line in sorted(lines, key=order):
        writer.writerow((line.name, line.state, line.licence, line.xml_md5, line.detail))
    _write(path, text.getvalue().encode())
