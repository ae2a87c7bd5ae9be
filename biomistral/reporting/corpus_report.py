"""One page on what a corpus took and left out, made from its ``documents.parquet`` alone.

Counts by reason, licence, language, year, journal and length, and a few documents of each kind to
look at. Reads the table in batches: memory holds counts and samples, not documents.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from biomistral.artifacts import read_manifest
from biomistral.disk import plain_os_errors
from biomistral.errors import InputError
from biomistral.languages import LANGUAGES
from biomistral.models.rows import DOCUMENTS
from biomistral.reporting.document import Document
from biomistral.reporting.model_sections import Section
from biomistral.reporting.render import render_html
from biomistral.reporting.tables import Cell, Column, Row, Table, count_cell, number_cell, text_cell

_COLUMNS = (
    "id", "dropped", "detail", "licence", "language", "year", "journal", "title", "num_words",
    "num_tokens", "opening",
)  # fmt: skip
_SAMPLES = 4  # of each reason, and twice as many kept
_MOST_ROWS = 30  # of a table of journals
_LENGTHS = (128, 512, 1024, 2048, 4096, 8192, 16_384, 32_768)  # tokens
_BATCH_DOCUMENTS = 10_000

Pair = tuple[int, int]  # kept, dropped


@dataclass
class Tally:
    """What was counted: by key, how many kept and how many dropped."""

    reasons: Counter[str] = field(default_factory=Counter)
    kept: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    dropped: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    lengths: Counter[int] = field(default_factory=Counter)  # place in _LENGTHS
    tokens: int = 0
    words: int = 0
    samples: dict[str, list[tuple[str, dict[str, Any]]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one document."""
        reason = row["dropped"] or ""
        self.reasons[reason] += 1
        counts = self.dropped if reason else self.kept
        for key in ("licence", "language", "year", "journal"):
            counts[key][str(row[key] or "")] += 1
        if not reason:
            self.tokens += row["num_tokens"]
            self.words += row["num_words"]
            self.lengths[sum(row["num_tokens"] > bound for bound in _LENGTHS)] += 1
        self._keep_sample(reason, dict(row))

    def _keep_sample(self, reason: str, row: dict[str, Any]) -> None:
        """Keep those whose id has the smallest hash: an order that nobody chose."""
        lot = hashlib.blake2b(f"{row['id']}\0{row['title']}".encode(), digest_size=8).hexdigest()
        pool = self.samples[reason]
        pool.append((lot, row))
        if len(pool) > 8 * _SAMPLES:
            pool[:] = heapq.nsmallest(2 * _SAMPLES, pool, key=lambda item: item[0])

    def chosen(self, reason: str) -> list[dict[str, Any]]:
        """Sample documents with this reason (``""``: kept)."""
        number = _SAMPLES if reason else 2 * _SAMPLES
        return [row for _, row in heapq.nsmallest(number, self.samples[reason], key=lambda i: i[0])]


def write_corpus_report(tokens: Path, out: Path) -> Path:
    """Write the page of the corpus in the folder ``tokens`` to the file ``out``; return it.

    Raises ``InputError`` if the folder is no corpus or the file cannot be written.
    """
    manifest = read_manifest(tokens)
    if manifest is None or manifest.get("kind") != "tokens" or not (tokens / DOCUMENTS).is_file():
        raise InputError(
            f"{tokens}: is no corpus; name the folder of packed rows that was built, such as "
            "runs/NAME/tokens/corpus"
        )
    page = render_html(corpus_document(manifest["name"], read_tally(tokens / DOCUMENTS)))
    with plain_os_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        part = out.with_name(f".{out.name}.part")
        part.write_text(page, encoding="utf-8")
        part.replace(out)
    return out


def read_tally(path: Path) -> Tally:
    """Count the lines of a ``documents.parquet``. Raises ``InputError`` if it cannot be read."""
    tally = Tally()
    try:
        with pq.ParquetFile(path) as table:
            missing = set(_COLUMNS) - {"opening"} - set(table.schema_arrow.names)
            if missing:
                raise InputError(f"{path}: has no column {min(missing)}; build it again")
            present = [name for name in _COLUMNS if name in table.schema_arrow.names]
            for batch in table.iter_batches(_BATCH_DOCUMENTS, columns=present):
                for row in batch.to_pylist():
                    tally.add(row)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read ({error}); build the corpus again") from None
    return tally


def corpus_document(name: str, tally: Tally) -> Document:
    """Arrange what was counted into a page."""
    seen, kept = sum(tally.reasons.values()), tally.reasons[""]
    sections = [
        Section("reasons", "Kept and dropped", tables=[_reasons(tally.reasons)]),
        Section(
            "licences", "Licences", tables=[_pairs(tally, "licence", "Licence", "none or unclear")]
        ),
        Section(
            "languages", "Languages", tables=[_pairs(tally, "language", "Language", "unknown")]
        ),
        Section("years", "Years", tables=[_pairs(tally, "year", "Year", "unknown", by_name=True)]),
        Section("journals", "Journals", tables=[_pairs(tally, "journal", "Journal", "unknown")]),
        Section("lengths", "Lengths", tables=[_lengths(tally)]),
        Section("kept", "Some of what was kept", tables=[_samples("", tally)]),
        Section(
            "dropped",
            "Some of what was dropped",
            tables=[_samples(reason, tally) for reason in _ordered(tally.reasons)],
        ),
    ]
    facts = {
        "documents seen": f"{seen:,}",
        "documents kept": f"{kept:,}",
        "tokens": f"{tally.tokens:,}",
        "words": f"{tally.words:,}",
    }
    return Document(
        title=f"Corpus {name}",
        facts=facts,
        findings=list(_findings(tally, seen, kept)),
        sections=[section for section in sections if not section.is_empty],
    )


def _findings(tally: Tally, seen: int, kept: int) -> Iterator[str]:
    if not seen:
        yield "No document was seen."
        return
    yield f"{kept:,} of {seen:,} documents were kept ({kept / seen:.1%})."
    for reason in _ordered(tally.reasons)[:3]:
        number = tally.reasons[reason]
        yield f"{number:,} were dropped for {reason} ({number / seen:.1%})."
    if kept:
        yield f"A kept document has {tally.tokens / kept:,.0f} tokens on average."


def _ordered(reasons: Counter[str]) -> list[str]:
    return sorted((r for r in reasons if r), key=lambda reason: (-reasons[reason], reason))


def _reasons(reasons: Counter[str]) -> Table:
    total = sum(reasons.values())
    rows = [("kept", reasons[""]), *((reason, reasons[reason]) for reason in _ordered(reasons))]
    return Table(
        id="reasons",
        title="Documents by what became of them",
        head="Outcome",
        columns=(Column("Documents"), Column("Share in %")),
        rows=tuple(Row(name, (count_cell(n), _percent(n, total))) for name, n in rows if n),
        note="What each reason means stands in docs/corpus.md.",
    )


def _pairs(tally: Tally, key: str, head: str, empty: str, *, by_name: bool = False) -> Table:
    kept, dropped = tally.kept[key], tally.dropped[key]
    names = sorted(kept.keys() | dropped.keys(), key=lambda n: (-kept[n], -dropped[n], n))
    if by_name:
        names.sort(reverse=True)
    shown = names if by_name else names[:_MOST_ROWS]
    left = names[len(shown) :]
    rows = [_pair_row(_label(key, n) or empty, kept[n], dropped[n], tally) for n in shown]
    if left:
        rest = (sum(kept[n] for n in left), sum(dropped[n] for n in left))
        rows.append(_pair_row(f"{len(left):,} others", *rest, tally))
    columns = (Column("Kept"), Column("Share of kept in %"), Column("Dropped"))
    return Table(f"by-{key}", f"Documents by {head.lower()}", head, columns, tuple(rows))


def _label(key: str, name: str) -> str:
    language = LANGUAGES.get(name) if key == "language" else None
    return f"{getattr(language, 'name', language)} ({name})" if language else name


def _pair_row(label: str, kept: int, dropped: int, tally: Tally) -> Row:
    return Row(label, (count_cell(kept), _percent(kept, tally.reasons[""]), count_cell(dropped)))


def _lengths(tally: Tally) -> Table:
    kept = tally.reasons[""]
    bounds = ["0", *(f"{bound + 1:,}" for bound in _LENGTHS)]
    labels = [f"{low} to {high:,}" for low, high in zip(bounds, _LENGTHS, strict=False)]
    labels.append(f"{bounds[-1]} and more")
    rows = [
        Row(label, (count_cell(tally.lengths[place]), _percent(tally.lengths[place], kept)))
        for place, label in enumerate(labels)
        if kept
    ]
    columns = (Column("Documents"), Column("Share in %"))
    return Table("by-length", "Kept documents by length", "Tokens", columns, tuple(rows))


def _samples(reason: str, tally: Tally) -> Table:
    rows = tally.chosen(reason)
    return Table(
        id=f"samples-{reason or 'kept'}".replace("_", "-"),
        title=f"{reason or 'kept'}: {len(rows)} of {tally.reasons[reason]:,}",
        head="Document",
        columns=tuple(Column(title, is_text=True) for title in ("Language", "Title", "Begins")),
        rows=tuple(Row(str(row["id"]), tuple(_sample_cells(row))) for row in rows),
    )


def _sample_cells(row: Mapping[str, Any]) -> Iterable[Cell]:
    begins = row.get("opening") or row["detail"] or ""
    return map(text_cell, (row["language"] or "", _short(row["title"] or ""), begins))


def _short(text: str, most: int = 120) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _percent(part: int, whole: int) -> Cell:
    return number_cell(100 * part / whole if whole else None)
