"""One shard of a corpus: read it, judge it, tokenize it, and leave the result whole or not at all.

``make_shard`` is a plain function of a job file and a shard, so that any process, on this machine
or another, can call it. Its result is a folder named after the shard and after everything that it
was made from, so that another setting never finds it:

    documents.parquet   one line per document seen, those dropped so far with the reason
    kept.npy            one record per document not dropped so far (``KEPT``)
    tokens.bin          their tokens, one document after the other, <s> to </s>
    sample.txt          the text of the first of them, to check its tokens by

Whether a document repeats one of another shard is decided later. Knows nothing about workers, rows
or the order of documents.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from biomistral import artifacts
from biomistral.corpus.documents import Document, Dropped, count_words
from biomistral.corpus.encoding import DocumentEncoder, TokenizerParts
from biomistral.corpus.sketches import BINS, sketch
from biomistral.corpus.sources import Shard, is_unchanged, read_shard
from biomistral.errors import InputError
from biomistral.languages import LANGUAGES
from biomistral.models.rows import DOCUMENTS, dtype_for
from biomistral.recipe.settings import CorpusSettings

KEPT = np.dtype(
    [
        ("line", "<u4"),  # in the shard's documents.parquet
        ("length", "<i8"),  # in tokens, <s> to </s>
        ("language", "u1"),  # place in LANGUAGES, or NO_LANGUAGE
        ("draw", "<u8"),  # by its article's id and the seed: where chance decides
        ("id", "<u8"),  # of its id, if that names an article of the world; else 0
        ("digest", "<u8"),  # of its words
        ("sketch", "u1", (BINS,)),  # of its runs of words
    ]
)  # 184 bytes a document
NO_LANGUAGE = 255
KEPT_FILE, TOKENS_FILE, SAMPLE_FILE = "kept.npy", "tokens.bin", "sample.txt"

_BATCH_DOCUMENTS = 64  # tokenized together: about 2 MB of article text
_ROW_GROUP_DOCUMENTS = 10_000  # of documents.parquet
_OPENING_CHARACTERS = 300
_SAMPLE_CHARACTERS = 100_000  # a longer document is no sample

_TEXT_COLUMNS = (
    "id", "doi", "pmcid", "pmid", "file", "part", "article_type", "title", "authors", "journal", "licence",
    "licence_source", "language", "declared_language", "source_md5", "split", "sha256", "dropped",
    "detail", "opening",
)  # fmt: skip
SCHEMA = pa.schema(
    [(name, pa.string()) for name in _TEXT_COLUMNS]
    + [("version", pa.int32()), ("year", pa.int32())]
    + [("num_words", pa.int64()), ("num_tokens", pa.int64())]
)


@dataclass(frozen=True)
class Job:
    """What all shards of a corpus have in common."""

    settings: CorpusSettings
    tokenizer: TokenizerParts
    seed: int
    excluded: Path | None  # a file of word runs that no document may contain
    key: str  # digest of all that a shard's result depends on, its own files apart


def write_job(folder: Path, job: Job) -> Path:
    """Write a job where every worker can read it; return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"job-{job.key[:16]}.json"
    value = {
        "settings": job.settings.model_dump(mode="json"),
        "tokenizer": asdict(job.tokenizer),
        "seed": job.seed,
        "excluded": str(job.excluded.absolute()) if job.excluded else None,
        "key": job.key,
    }
    artifacts.write_json(path, value)
    return path


def shard_folder(job_file: Path, key: str, shard: Shard) -> Path:
    """Where the result of a shard is, once it is whole."""
    facts = {**asdict(shard), "root": ""}  # data may be moved
    own = artifacts.digest_of([key, facts])
    return job_file.parent / f"{shard.name}-{own[:16]}"


def make_shard(job_file: Path, shard: Shard) -> Path:
    """Make the result of one shard, unless it is there, and return its folder."""
    job, encoder = _load(job_file)
    out = shard_folder(job_file, job.key, shard)
    if out.is_dir():
        return out
    if not is_unchanged(shard):  # unread articles would be dropped one by one
        raise InputError(
            f"{shard.root}: the files of {shard.name} ({shard.names[0]} to {shard.names[-1]}) are not "
            f"on the machine {os.uname().nodename} as they were when the build began; give all "
            "machines the same folder under the same path, and leave it as it is while a build runs"
        )
    draft = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        _fill(draft, job, encoder, shard)
        for path in (*draft.iterdir(), draft):
            artifacts.flush(path)
        draft.rename(out)
    except OSError:
        if not out.is_dir():  # another process was faster: its result is the same
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return out


@functools.lru_cache(maxsize=1)
def _load(job_file: Path) -> tuple[Job, DocumentEncoder]:
    value = json.loads(job_file.read_text(encoding="utf-8"))
    tokenizer = TokenizerParts(
        **{f.name: value["tokenizer"][f.name] for f in fields(TokenizerParts)}
    )
    job = Job(
        settings=CorpusSettings.model_validate(value["settings"]),
        tokenizer=tokenizer,
        seed=value["seed"],
        excluded=Path(value["excluded"]) if value["excluded"] else None,
        key=value["key"],
    )
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # processes are the parallelism
    return job, DocumentEncoder(tokenizer)


def _fill(draft: Path, job: Job, encoder: DocumentEncoder, shard: Shard) -> None:
    """Write the four files."""
    read = read_shard(shard, job.settings, job.excluded)
    kept: list[Any] = []
    with (
        (draft / TOKENS_FILE).open("wb") as tokens,
        (draft / SAMPLE_FILE).open("w", encoding="utf-8", newline="") as sample,
        pq.ParquetWriter(draft / DOCUMENTS, SCHEMA, compression="zstd") as table,
    ):
        lines = _lines(read, job, encoder, tokens, sample, kept)
        while batch := list(itertools.islice(lines, _ROW_GROUP_DOCUMENTS)):
            table.write_table(pa.Table.from_pylist(batch, schema=SCHEMA))
    np.save(draft / KEPT_FILE, np.array(kept, dtype=KEPT))


def _lines(
    read: Iterator[Document | Dropped],
    job: Job,
    encoder: DocumentEncoder,
    tokens: IO[bytes],
    sample: IO[str],
    kept: list[Any],
) -> Iterator[dict[str, Any]]:
    """Lines of ``documents.parquet``; on the way the tokens are written and ``kept`` is filled."""
    dtype = dtype_for(job.tokenizer.vocabulary_size)
    number = 0
    while batch := list(itertools.islice(read, _BATCH_DOCUMENTS)):
        texts = [item.text for item in batch if isinstance(item, Document)]
        encoded = iter(encoder.encode(texts))
        for item in batch:
            if isinstance(item, Dropped):
                yield _line(item.document, item.reason, item.detail, 0)
            else:
                ids = next(encoded)
                if not kept and len(item.text) <= _SAMPLE_CHARACTERS:
                    sample.write(item.text)
                tokens.write(ids.astype(dtype).tobytes())
                kept.append(_record(item, number, len(ids), job.seed))
                yield _line(item, "", item.detail, len(ids))
            number += 1


def _line(document: Document, reason: str, detail: str, num_tokens: int) -> dict[str, Any]:
    return {
        **{name: getattr(document, name, "") or "" for name in _TEXT_COLUMNS},
        "split": "",
        "sha256": hashlib.sha256(document.text.encode()).hexdigest() if document.text else "",
        "dropped": reason,
        "detail": detail,
        # To show what was dropped; not of a text whose licence does not let it be passed on.
        "opening": "" if reason.startswith("licence") else document.text[:_OPENING_CHARACTERS],
        "version": document.version,
        "year": document.year,
        "num_words": count_words(document.text),
        "num_tokens": num_tokens,
    }


def _record(document: Document, line: int, length: int, seed: int) -> tuple[Any, ...]:
    digest, runs = sketch(document.text)
    # Other ids are file names, which may be alike in two folders, or the user's own numbers.
    names_article = bool(document.pmcid or document.doi)
    return (
        line,
        length,
        _LANGUAGE_PLACES.get(document.language or "", NO_LANGUAGE),
        draw_of(document.family, seed),
        _number(document.id) or 1 if names_article else 0,
        digest,
        runs,
    )


_LANGUAGE_PLACES = {code: place for place, code in enumerate(LANGUAGES)}


def draw_of(family: str, seed: int) -> int:
    """64 bits by an article's id and a seed: all parts of an article go together."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{family}".encode()).digest()[:8], "big")


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def read_kept(folder: Path) -> NDArray[Any]:
    """Records of the documents of a shard that are not dropped so far."""
    records: NDArray[Any] = np.load(folder / KEPT_FILE)
    return records


def read_sample(folder: Path, kept: NDArray[Any], dtype: np.dtype[Any]) -> tuple[str, NDArray[Any]]:
    """Text and ids of the first document of a shard; an empty text if there is no sample."""
    text = (folder / SAMPLE_FILE).read_bytes().decode()
    count = int(kept["length"][0]) if len(kept) and text else 0
    return text, np.fromfile(folder / TOKENS_FILE, dtype=dtype, count=count)
