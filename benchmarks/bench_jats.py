"""How fast articles become text: parsing, extraction, licence and filters, on one core.

    python benchmarks/bench_jats.py FOLDER

FOLDER holds JATS files at any depth. CPU time of this process, each stage run three times over all
files and the best taken; lxml's bare parse in the same run is the ceiling of any tool built on it.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path

from lxml import etree

from biomistral.corpus.documents import Document
from biomistral.corpus.files import UnreadableError
from biomistral.corpus.filters import reason_to_drop, with_language
from biomistral.corpus.jats import read_article
from biomistral.recipe.settings import CorpusSettings

SETTINGS = CorpusSettings(articles=["*.xml"])


def parse(data: bytes) -> list[Document]:
    with contextlib.suppress(etree.XMLSyntaxError):
        etree.fromstring(data)
    return []


def extract(data: bytes) -> list[Document]:
    try:
        return read_article(data, "k")
    except UnreadableError:
        return []


def judge(data: bytes) -> list[Document]:
    documents = [with_language(document) for document in extract(data)]
    for document in documents:
        reason_to_drop(document, SETTINGS)
    return documents


def main() -> None:
    paths = sorted(
        path for path in Path(sys.argv[1]).rglob("*") if path.suffix in {".xml", ".nxml"}
    )
    articles = [path.read_bytes() for path in paths]
    size = sum(map(len, articles)) / 1e6
    text = sum(len(d.text.encode()) for data in articles for d in extract(data)) / 1e6
    print(f"{len(articles)} files, {size:.1f} MB of XML, {text:.1f} MB of text")
    stages: dict[str, Callable[[bytes], list[Document]]] = {
        "lxml parse alone": parse,
        "parse, text, licence, facts": extract,
        "the same, language and filters": judge,
    }
    for name, stage in stages.items():
        best = min(_seconds(stage, articles) for _ in range(3))
        print(f"{name:32} {size / best:6.1f} MB/s of XML {len(articles) / best:7.0f} articles/s")


def _seconds(stage: Callable[[bytes], list[Document]], articles: list[bytes]) -> float:
    start = time.process_time()
    for data in articles:
        stage(data)
    return time.process_time() - start


if __name__ == "__main__":
    main()
