"""Make the ``tokens`` artefact: shards, then what all shards together decide, then rows.

The one module of this room that writes artefacts. Shards and parts of rows are made by as many
processes as are asked for; each is whole or absent, is kept if the build is interrupted, and what
comes out depends on nothing but the settings, the bytes of the sources, the tokenizer and the seed.
Every document seen has one line in ``documents.parquet``, kept or dropped with its reason; the rows
are in the format of ``biomistral.models.rows``.
"""

from __future__ import annotations

import functools
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from biomistral import artifacts, versions
from biomistral.artifacts import Draft, Origin
from biomistral.corpus import gathering, provenance
from biomistral.corpus.documents import Dropped
from biomistral.corpus.gathering import Gathered, Tally, gather
from biomistral.corpus.layout import Target, join_lines, lay_out, write_part
from biomistral.corpus.shards import (
    TOKENS_FILE,
    Job,
    make_shard,
    read_kept,
    read_sample,
    shard_folder,
    write_job,
)
from biomistral.corpus.sketches import sketch
from biomistral.corpus.sources import Shard, list_shards, read_shard, source_files
from biomistral.corpus.tokens import DocumentTokenizer, load_tokenizer
from biomistral.errors import InputError
from biomistral.models.rows import DOCUMENTS, ROWS, TOKENS, dtype_for, write_facts
from biomistral.progress import Progress, ignore
from biomistral.recipe.settings import CorpusSettings
from biomistral.workers import num_processors, run_all

_SMALL_BYTES = 30_000_000  # of sources: done before other processes have started
_FEW_ROWS = 20_000  # written in less than a second


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

    ``seed`` decides which documents are held out, and which a budget takes; ``excluded`` is a file
    of word runs (``ngrams``) that no document may contain. With several workers, a script that
    calls this must guard its main part (``if __name__ == "__main__":``).

    Raises ``InputError`` if a pattern matches nothing or no document is kept, ``ModelError`` if
    the tokenizer cannot be used or the fast way gives other tokens than Transformers.
    """
    document_tokenizer = load_tokenizer(tokenizer)
    shards = list_shards(settings)
    if origin is None:
        origin = _own_origin(settings, document_tokenizer, seed, excluded)
    with artifacts.create(out, origin, resume=True) as draft:
        job = _job(settings, document_tokenizer, seed, excluded)
        folders = _make_shards(job, shards, document_tokenizer, draft.work, progress)
        found = gather(folders, settings, progress)
        _check_splits(settings, found, folders)
        tally = _write_documents(folders, found, draft.folder)
        facts = _write_rows(settings, document_tokenizer, draft, folders, found, progress)
        places = facts["num_rows"] * settings.sequence_length
        draft.counts.update(
            articles_read=sum(len(shard.names) for shard in shards),  # files, of plain texts too
            **tally.counts(),
            tokens=facts["num_tokens"],
            rows=facts["num_rows"],
            held_out_rows=facts["num_held_out_rows"],
            padding_fraction=1 - facts["num_tokens"] / places,
        )
        assert facts["num_tokens"] == tally.tokens, "packing lost or doubled tokens"
        _write_datasheet(settings, document_tokenizer, draft)
    return out


def iterate_texts(settings: CorpusSettings, excluded: Path | None = None) -> Iterator[str]:
    """Yield the text of every document that passes the filters, held out or not, each once.

    ``excluded`` is as in ``build_corpus``. What that decides over all documents (near duplicates,
    budgets) is not asked here.
    Raises ``InputError`` at the end if there was none.
    """
    dropped: Counter[str] = Counter()
    seen: set[int] = set()
    for shard in list_shards(settings):
        for item in read_shard(shard, settings, excluded):
            if isinstance(item, Dropped):
                dropped[item.reason] += 1
            elif (digest := sketch(item.text)[0]) not in seen:
                seen.add(digest)
                yield item.text
    if not seen:
        raise _nothing_kept(settings, dropped)


def _job(
    settings: CorpusSettings, tokenizer: DocumentTokenizer, seed: int, excluded: Path | None
) -> Job:
    key = artifacts.digest_of(
        {
            "settings": settings.model_dump(mode="json"),
            "tokenizer": [tokenizer.parts.state, tokenizer.parts.bos_id, tokenizer.parts.eos_id],
            "seed": seed,
            "excluded": artifacts.file_digest(excluded) if excluded else None,
            "step_version": versions.STEP_VERSIONS["corpus"],
        }
    )
    return Job(settings, tokenizer.parts, seed, excluded, key)


# --- shards ---------------------------------------------------------------------------------------


def _make_shards(
    job: Job,
    shards: Sequence[Shard],
    tokenizer: DocumentTokenizer,
    work: Path,
    progress: Progress,
) -> list[Path]:
    """Make all shards that are not there yet; check the tokens of a document of each."""
    job_file = write_job(work / "shards", job)
    pending = [s for s in shards if not shard_folder(job_file, job.key, s).is_dir()]
    done = len(shards) - len(pending)
    progress(done, len(shards), "shards")
    num_workers = 1 if _is_small(pending) else job.settings.workers or num_processors()
    dtype = dtype_for(tokenizer.parts.vocabulary_size)
    for index, folder in run_all(functools.partial(make_shard, job_file), pending, num_workers):
        text, ids = read_sample(folder, read_kept(folder), dtype)
        if text:
            tokenizer.check_ids(text, ids)
        done += 1
        progress(done, len(shards), pending[index].name)
    return [shard_folder(job_file, job.key, shard) for shard in shards]


def _is_small(shards: Sequence[Shard]) -> bool:
    total = 0
    for path in (Path(shard.root, name) for shard in shards for name in shard.names):
        total += path.stat().st_size if path.is_file() else 0
        if total > _SMALL_BYTES:
            return False
    return True


# --- what all shards together decide --------------------------------------------------------------


def _write_documents(folders: Sequence[Path], found: Gathered, out: Path) -> Tally:
    """Write ``documents.parquet`` and ``ATTRIBUTION.txt``; count."""
    tally = Tally()
    lines = out / f".{provenance.ATTRIBUTION}"
    with lines.open("w", encoding="utf-8") as stream:
        for row in gathering.write_documents(folders, found, out / DOCUMENTS):
            tally.add(row)
            if not row["dropped"]:
                stream.write(provenance.attribution_line(row))
    with (out / provenance.ATTRIBUTION).open("w", encoding="utf-8") as stream:
        stream.write(provenance.attribution_head(tally.by_licence))
        with lines.open(encoding="utf-8") as source:
            for line in source:
                stream.write(line)
    lines.unlink()
    return tally


def _check_splits(settings: CorpusSettings, found: Gathered, folders: Sequence[Path]) -> None:
    held_out = int((found.enters & found.held_out).sum())
    total = int(found.enters.sum())
    if total == 0:
        raise _nothing_kept(settings, _reasons(found, folders))
    if held_out == total or (held_out == 0 and settings.held_out_fraction > 0):
        which = "none to train on" if held_out else "none held out"
        raise InputError(
            f"corpus {settings.name!r}: held_out_fraction {settings.held_out_fraction} leaves "
            f"{which} of {total} documents; choose another fraction, or give more documents"
        )


def _reasons(found: Gathered, folders: Sequence[Path]) -> Counter[str]:
    import pyarrow.parquet as pq

    dropped = Counter(gathering.reasons(found))
    for folder in folders:
        reasons = pq.read_table(folder / DOCUMENTS, columns=["dropped"])["dropped"].to_pylist()
        dropped.update(reason for reason in reasons if reason)
    return dropped


def _nothing_kept(settings: CorpusSettings, dropped: Counter[str]) -> InputError:
    reasons = ", ".join(f"{reason} {number}" for reason, number in sorted(dropped.items()))
    return InputError(
        f"corpus {settings.name!r}: no document is left; of {sum(dropped.values())} seen, dropped "
        f"for: {reasons or 'nothing (the files hold no documents)'}; allowed are the licences "
        f"{', '.join(settings.licences)}, the languages {', '.join(settings.languages)} and at "
        f"least {settings.minimum_words} words; change these settings or the sources"
    )


# --- rows -----------------------------------------------------------------------------------------


def _write_rows(
    settings: CorpusSettings,
    tokenizer: DocumentTokenizer,
    draft: Draft,
    folders: Sequence[Path],
    found: Gathered,
    progress: Progress,
) -> dict[str, Any]:
    """Write ``tokens.bin``, ``rows.parquet`` and ``tokens.json``; return what that says."""
    sections = gathering.sections(found, settings)
    stored = gathering.stored(found)
    parts = list(lay_out(stored, sections, settings.sequence_length, settings.packing))
    dtype = dtype_for(tokenizer.parts.vocabulary_size)
    # Named after the shards: rows of other shards are never taken for these.
    work = draft.work / f"rows-{artifacts.digest_of([f.name for f in folders])[:16]}"
    if not (work / TOKENS).is_file():  # lines without their rows are worth nothing
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        (work / TOKENS).touch()
    target = Target(
        tokens=work / TOKENS,
        folder=work,
        sources=tuple(folder / TOKENS_FILE for folder in folders),
        sequence_length=settings.sequence_length,
        dtype=dtype.str,
        eos_id=tokenizer.parts.eos_id,
    )
    num_rows = sum(part.num_rows for part in parts)
    with target.tokens.open("r+b") as stream:
        stream.truncate(num_rows * settings.sequence_length * dtype.itemsize)
    num_workers = 1 if num_rows < _FEW_ROWS else settings.workers or num_processors()
    lines: dict[int, Path] = {}
    for index, path in run_all(functools.partial(write_part, target), parts, num_workers):
        lines[index] = path
        progress(len(lines), len(parts), "parts of rows written")
    join_lines([lines[index] for index in range(len(parts))], draft.folder / ROWS)
    _hand_over(target.tokens, draft.folder / TOKENS)
    return write_facts(
        draft.folder,
        num_rows=num_rows,
        num_held_out_rows=sum(part.num_rows for part in parts if part.split == "held_out"),
        num_tokens=int(sum(part.lengths.sum() for part in parts)),
        sequence_length=settings.sequence_length,
        vocabulary_size=tokenizer.parts.vocabulary_size,
        eos_id=tokenizer.parts.eos_id,
        tokenizer_sha256=tokenizer.parts.sha256,
    )


def _hand_over(rows: Path, out: Path) -> None:
    """Give finished rows to the artefact; where the disk can, work keeps them, too, over a kill."""
    try:
        out.hardlink_to(rows)
    except OSError:
        rows.rename(out)


def _write_datasheet(settings: CorpusSettings, tokenizer: DocumentTokenizer, draft: Draft) -> None:
    facts = {
        "name": tokenizer.parts.name,
        "vocabulary_size": tokenizer.parts.vocabulary_size,
        "sha256": tokenizer.parts.sha256,
    }
    text = provenance.datasheet(settings, draft.counts, facts)
    (draft.folder / provenance.DATASHEET).write_text(text, encoding="utf-8")


def _own_origin(
    settings: CorpusSettings, tokenizer: DocumentTokenizer, seed: int, excluded: Path | None
) -> Origin:
    return Origin(
        kind="tokens",
        name=settings.name,
        settings={**settings.model_dump(mode="json"), "seed": seed},
        inputs={
            "sources": artifacts.fingerprint_of_files(source_files(settings)),
            "tokenizer": tokenizer.parts.sha256,
            **({"excluded": artifacts.file_digest(excluded)} if excluded else {}),
        },
        step_version=versions.STEP_VERSIONS["corpus"],
    )
