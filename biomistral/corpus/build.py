"""Make the ``tokens`` artefact: read, filter, tokenize, pack, write.

The one module of this room that writes. Every document seen has one line in
``documents.parquet``, kept or dropped with its reason; the rows are in the format of
``biomistral.models.rows``. Tokens of documents lie in a scratch file until they are packed, so
memory holds facts about documents and never their text.
"""

from __future__ import annotations

import hashlib
import itertools
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from biomistral import artifacts, versions
from biomistral.artifacts import Draft, Origin
from biomistral.corpus import filters
from biomistral.corpus.documents import Document, count_words
from biomistral.corpus.packing import Packing, pack
from biomistral.corpus.sources import read_documents, source_files
from biomistral.corpus.tokens import DocumentTokenizer, load_tokenizer
from biomistral.errors import InputError
from biomistral.models.rows import DOCUMENTS, Row, Split, dtype_for, write_rows
from biomistral.ngrams import read_runs
from biomistral.progress import Progress, ignore
from biomistral.recipe.settings import CorpusSettings

Item = TypeVar("Item")
_BATCH_DOCUMENTS = 128  # tokenized together: about 3 MB of article text
_ROW_GROUP_DOCUMENTS = 10_000  # of documents.parquet
_CHECKED_DOCUMENTS = 8  # whose tokens are made a second time, the plain way

_TEXT_COLUMNS = (
    "id", "doi", "pmcid", "file", "part", "article_type", "title", "journal", "licence",
    "language", "split", "sha256", "dropped", "detail",
)  # fmt: skip
_SCHEMA = pa.schema(
    [(name, pa.string()) for name in _TEXT_COLUMNS]
    + [("year", pa.int32()), ("num_words", pa.int64()), ("num_tokens", pa.int64())]
)


def build_corpus(
    settings: CorpusSettings,
    tokenizer: Path | str,
    out: Path,
    *,
    seed: int = 42,
    excluded: Path | None = None,
    origin: Origin | None = None,
    progress: Progress = ignore,
) -> Path:
    """Make packed rows of tokens from the sources of ``settings`` and return ``out``.

    ``seed`` decides which documents are held out; ``excluded`` is a file of word runs (``ngrams``)
    that no document may contain. The result depends on nothing but the settings,
    the bytes of the sources, the tokenizer and the seed.

    Raises ``InputError`` if a pattern matches nothing or no document is kept, ``ModelError`` if
    the tokenizer cannot be used.
    """
    document_tokenizer = load_tokenizer(tokenizer)
    if origin is None:
        origin = _own_origin(settings, document_tokenizer, seed, excluded)
    with artifacts.create(out, origin) as draft:
        tally = _tokenize(settings, document_tokenizer, draft, seed, excluded, progress)
        _check_splits(settings, tally)
        facts, padding = _write_packed(settings, document_tokenizer, draft, tally)
        draft.counts.update(
            tally.counts(),
            tokens=facts["num_tokens"],
            rows=facts["num_rows"],
            held_out_rows=facts["num_held_out_rows"],
            padding_fraction=padding,
        )
    return out


def iterate_texts(settings: CorpusSettings, excluded: Path | None = None) -> Iterator[str]:
    """Yield the text of every document that ``build_corpus`` would keep, held out or not.

    ``excluded`` is as in ``build_corpus``.

    Raises ``InputError`` at the end if there was none.
    """
    dropped: Counter[str] = Counter()
    kept = False
    for document, reason in judged(read_documents(settings), settings, excluded):
        if reason:
            dropped[reason] += 1
        else:
            kept = True
            yield document.text
    if not kept:
        raise _nothing_kept(settings, dropped)


def judged(
    documents: Iterator[Document], settings: CorpusSettings, excluded: Path | None = None
) -> Iterator[tuple[Document, str]]:
    """Each document with its language, and the reason to drop it (``""``: keep)."""
    seen = filters.Seen()
    overlap = filters.Overlap(*read_runs(excluded)) if excluded else None
    for document in map(filters.with_language, documents):
        reason = (
            filters.reason_to_drop(document, settings)
            or (overlap.reason_to_drop(document) if overlap else "")
            or seen.reason_to_drop(document)
        )
        yield document, reason


def split_of(document: Document, held_out_fraction: float, seed: int) -> Split:
    """Held out or not, by a hash of the article's id: all parts of an article go together."""
    digest = hashlib.sha256(f"{seed}:{document.family}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    return "held_out" if place < held_out_fraction else "train"


@dataclass
class _Kept:
    """Kept documents of one split, in order."""

    indices: array[int] = field(default_factory=lambda: array("q"))  # line in documents.parquet
    starts: array[int] = field(default_factory=lambda: array("q"))  # token in the scratch file
    lengths: array[int] = field(default_factory=lambda: array("q"))  # in tokens, <s> to </s>


@dataclass
class _Tally:
    """What is known after tokenizing."""

    train: _Kept = field(default_factory=_Kept)
    held_out: _Kept = field(default_factory=_Kept)
    files: int = 0
    seen: int = 0
    words: int = 0
    tokens: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    by_language: Counter[str] = field(default_factory=Counter)
    by_licence: Counter[str] = field(default_factory=Counter)

    def keep(self, document: Document, split: Split, *, num_tokens: int, num_words: int) -> None:
        kept = self.train if split == "train" else self.held_out
        kept.indices.append(self.seen)
        kept.starts.append(self.tokens)
        kept.lengths.append(num_tokens)
        self.tokens += num_tokens
        self.words += num_words
        self.by_language[document.language or "unknown"] += 1
        self.by_licence[document.licence or "none given"] += 1

    def counts(self) -> dict[str, Any]:
        return {
            "articles_read": self.files,  # files, of plain texts too
            "documents_seen": self.seen,
            "documents_kept": len(self.train.lengths) + len(self.held_out.lengths),
            "documents_held_out": len(self.held_out.lengths),
            "words": self.words,
            "dropped": dict(sorted(self.dropped.items())),
            "by_language": dict(sorted(self.by_language.items())),
            "by_licence": dict(sorted(self.by_licence.items())),
        }


def _tokenize(
    settings: CorpusSettings,
    tokenizer: DocumentTokenizer,
    draft: Draft,
    seed: int,
    excluded: Path | None,
    progress: Progress,
) -> _Tally:
    """Write ``documents.parquet`` and the tokens of kept documents to a scratch file."""
    tally = _Tally()

    def on_file(done: int, total: int, name: str) -> None:
        tally.files = done + 1
        progress(done, total, name)

    def lines() -> Iterator[dict[str, Any]]:
        for document, reason, ids in _encoded(
            judged(read_documents(settings, on_file), settings, excluded), tokenizer
        ):
            split = split_of(document, settings.held_out_fraction, seed)
            line = _line(document, reason, split, ids)
            if ids is None:
                tally.dropped[reason] += 1
            else:
                scratch.write(ids.astype(dtype).tobytes())
                tally.keep(document, split, num_tokens=len(ids), num_words=line["num_words"])
            tally.seen += 1
            yield line

    dtype = dtype_for(tokenizer.vocabulary_size)
    with (
        (draft.work / "documents.bin").open("wb") as scratch,
        pq.ParquetWriter(draft.folder / DOCUMENTS, _SCHEMA, compression="zstd") as table,
    ):
        for batch in _batches(lines(), _ROW_GROUP_DOCUMENTS):
            table.write_table(pa.Table.from_pylist(batch, schema=_SCHEMA))
    return tally


def _encoded(
    stream: Iterator[tuple[Document, str]], tokenizer: DocumentTokenizer
) -> Iterator[tuple[Document, str, NDArray[np.int64] | None]]:
    """Add token ids to the documents that are kept; check the first few a second time."""
    unchecked = _CHECKED_DOCUMENTS
    for batch in _batches(stream, _BATCH_DOCUMENTS):
        kept = [document.text for document, reason in batch if not reason]
        for text in kept[:unchecked]:
            tokenizer.check(text)
        unchecked -= min(unchecked, len(kept))
        encoded = iter(tokenizer.encode(kept))
        for document, reason in batch:
            yield document, reason, None if reason else next(encoded)


def _batches(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    return iter(lambda: list(itertools.islice(items, size)), [])


def _line(
    document: Document, reason: str, split: Split, ids: NDArray[np.int64] | None
) -> dict[str, Any]:
    return {
        **{name: getattr(document, name, "") or "" for name in _TEXT_COLUMNS},
        "split": "" if reason else split,
        "sha256": hashlib.sha256(document.text.encode()).hexdigest() if document.text else "",
        "dropped": reason,
        "year": document.year,
        "num_words": count_words(document.text),
        "num_tokens": 0 if ids is None else len(ids),
    }


def _write_packed(
    settings: CorpusSettings, tokenizer: DocumentTokenizer, draft: Draft, tally: _Tally
) -> tuple[dict[str, Any], float]:
    """Pack each split by itself and write the rows; also the share of padding in all rows."""
    dtype = dtype_for(tokenizer.vocabulary_size)
    scratch = np.memmap(draft.work / "documents.bin", dtype=dtype, mode="r")

    def rows(kept: _Kept) -> Iterator[Row]:
        lengths = np.array(kept.lengths, dtype=np.int64)
        packing = pack(lengths, settings.sequence_length, settings.packing)
        return _rows(packing, scratch, kept)

    facts = write_rows(
        draft.folder,
        rows(tally.train),
        rows(tally.held_out),
        sequence_length=settings.sequence_length,
        vocabulary_size=tokenizer.vocabulary_size,
        eos_id=tokenizer.eos_id,
        tokenizer_sha256=tokenizer.sha256,
    )
    assert facts["num_tokens"] == tally.tokens, "packing lost or doubled tokens"
    return facts, 1 - facts["num_tokens"] / (facts["num_rows"] * settings.sequence_length)


def _rows(packing: Packing, scratch: NDArray[Any], kept: _Kept) -> Iterator[Row]:
    for row in packing:
        places = [(kept.starts[document] + start, length) for document, start, length in row]
        yield Row(
            pieces=tuple(scratch[first : first + length] for first, length in places),
            documents=tuple(kept.indices[document] for document, _, _ in row),
        )


def _own_origin(
    settings: CorpusSettings, tokenizer: DocumentTokenizer, seed: int, excluded: Path | None
) -> Origin:
    return Origin(
        kind="tokens",
        name=settings.name,
        settings={**settings.model_dump(mode="json"), "seed": seed},
        inputs={
            "sources": artifacts.fingerprint_of_files(source_files(settings)),
            "tokenizer": tokenizer.sha256,
            **({"excluded": artifacts.file_digest(excluded)} if excluded else {}),
        },
        step_version=versions.STEP_VERSIONS["corpus"],
    )


def _check_splits(settings: CorpusSettings, tally: _Tally) -> None:
    num_train, num_held_out = len(tally.train.lengths), len(tally.held_out.lengths)
    total = num_train + num_held_out
    if total == 0:
        raise _nothing_kept(settings, tally.dropped)
    if num_train == 0 or (num_held_out == 0 and settings.held_out_fraction > 0):
        which = "none to train on" if num_train == 0 else "none held out"
        raise InputError(
            f"corpus {settings.name!r}: held_out_fraction {settings.held_out_fraction} leaves "
            f"{which} of {total} documents; choose another fraction, or give more documents"
        )


def _nothing_kept(settings: CorpusSettings, dropped: Counter[str]) -> InputError:
    reasons = ", ".join(f"{reason} {number}" for reason, number in sorted(dropped.items()))
    return InputError(
        f"corpus {settings.name!r}: no document is left; of {sum(dropped.values())} seen, dropped "
        f"for: {reasons or 'nothing (the files hold no documents)'}; allowed are the licences "
        f"{', '.join(settings.licences)}, the languages {', '.join(settings.languages)} and at "
        f"least {settings.minimum_words} words; change these settings or the sources"
    )
