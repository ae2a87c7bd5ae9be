"""Read articles from where they lie: single files, objects of PubMed Central, packages.

An object is ``PMC<id>.<version>.xml`` with its JSON beside it (or below ``metadata/``): of several
versions of an article, the newest is read that is neither retracted nor recognized from scans.
Knows nothing about what else is kept.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from biomistral.corpus.documents import Document, Dropped
from biomistral.corpus.files import UnreadableError, read_bytes
from biomistral.corpus.jats import read_article
from biomistral.corpus.metadata import Metadata, parse_metadata
from biomistral.corpus.packages import file_list_of, members_of, read_file_list
from biomistral.corpus.texts import unreadable

_OBJECT = re.compile(r"(PMC\d+)\.(\d+)\.xml(?:\.gz)?")


@dataclass(frozen=True, slots=True)
class _Version:
    """One version of an article of PubMed Central, before its XML is opened."""

    name: str
    pmcid: str
    number: int
    metadata: Metadata | None
    problem: UnreadableError | None = None

    @property
    def is_usable(self) -> bool:
        """Not known to be retracted or recognized from scans."""
        facts = self.metadata
        return not self.problem and not (facts and (facts.is_retracted or facts.is_ocr))

    def dropped(self, reason: str, detail: str = "") -> Dropped:
        """Return what stands for it where its XML is not opened."""
        facts = self.metadata
        document = Document(
            id=self.pmcid,
            file=self.name,
            text="",
            pmcid=self.pmcid,
            version=self.number,
            doi=facts.doi if facts else "",
            pmid=facts.pmid if facts else "",
            licence=facts.licence if facts else None,
            licence_source=facts.source if facts else "",
        )
        return Dropped(document, reason, detail)


def stem_of(name: str) -> str:
    """What the versions of an article have in common; of another file, its name."""
    match = _OBJECT.fullmatch(PurePosixPath(name).name)
    return match[1] if match else name


def sidecar_of(path: Path) -> Path | None:
    """The JSON of an object's XML, if the file is one and has it."""
    match = _OBJECT.fullmatch(path.name)
    if not match:
        return None
    name = f"{match[1]}.{match[2]}.json"
    places = (path.with_name(name), *(up / "metadata" / name for up in list(path.parents)[:2]))
    return next((place for place in places if place.is_file()), None)


def read_articles(
    root: str, names: tuple[str, ...], keep: tuple[str, ...] = ()
) -> Iterator[Document | Dropped]:
    """Yield the documents of files of articles below ``root``, in order."""
    for _, group in itertools.groupby(names, stem_of):
        together = list(group)
        if _OBJECT.fullmatch(PurePosixPath(together[0]).name):
            yield from _read_versions(root, together, keep)
            continue
        for name in together:
            yield from _documents(_bytes_or_fault(Path(root, name)), name, None, keep)


def articles_of_package(
    path: Path, name: str, keep: tuple[str, ...] = ()
) -> Iterator[Document | Dropped]:
    """Yield the documents of a package, in the order of its members.

    Where there is a file list, an article that is not on it is refused, and one that is on it and
    not in the package is told.
    """
    listed: dict[str, Metadata] | None = None
    beside = file_list_of(path)
    if beside:
        try:
            listed = read_file_list(beside)
        except UnreadableError as error:
            yield unreadable(f"{name} ({beside.name})", error.reason, error.detail)
            return
    is_whole = True
    for member, data in members_of(path, (".xml", ".nxml")):
        key = f"{name}:{member}" if member else name
        is_whole = is_whole and bool(member)
        if listed is None or not member:
            yield from _documents(data, key, None, keep)
        elif (facts := listed.pop(member, None)) is None:
            yield unreadable(key, "not_in_file_list", "the package's file list does not name it")
        else:
            yield from _documents(data, key, facts, keep)
    if is_whole:
        for member in listed or ():
            yield unreadable(f"{name}:{member}", "not_in_package", "its file list names it")


def _bytes_or_fault(path: Path) -> bytes | UnreadableError:
    """Bytes of a file, or why there are none."""
    try:
        return read_bytes(path)
    except UnreadableError as error:
        return error


def _read_versions(
    root: str, names: list[str], keep: tuple[str, ...]
) -> Iterator[Document | Dropped]:
    versions = [_version(root, name) for name in names]
    chosen = max((v for v in versions if v.is_usable), key=lambda v: v.number, default=None)
    for version in versions:
        facts = version.metadata
        if version.problem:
            yield version.dropped(version.problem.reason, version.problem.detail)
        elif version is chosen:
            data = _bytes_or_fault(Path(root, version.name))
            yield from _documents(data, version.name, facts, keep)
        elif facts and facts.is_retracted:
            yield version.dropped("retracted")
        elif facts and facts.is_ocr:
            yield version.dropped("ocr")
        else:
            yield version.dropped("older_version")


def _version(root: str, name: str) -> _Version:
    match = _OBJECT.fullmatch(PurePosixPath(name).name)
    assert match, "grouped by this very pattern"
    facts, problem = None, None
    sidecar = sidecar_of(Path(root, name))
    if sidecar:
        try:
            facts = parse_metadata(read_bytes(sidecar))
        except UnreadableError as error:
            problem = error
        number = int(match[2])
        if facts and (facts.pmcid, facts.version or number) != (match[1], number):
            problem = UnreadableError("metadata_disagree", f"{sidecar.name} is of another version")
    return _Version(name, match[1], int(match[2]), facts, problem)


def _documents(
    data: bytes | UnreadableError, name: str, metadata: Metadata | None, keep: tuple[str, ...]
) -> Iterator[Document]:
    """The documents of one XML file, or the one that says why there are none."""
    try:
        if isinstance(data, UnreadableError):
            raise data
        yield from read_article(data, name, metadata, keep)
    except UnreadableError as error:
        yield unreadable(name, error.reason, error.detail)
