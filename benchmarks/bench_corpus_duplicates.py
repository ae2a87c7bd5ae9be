"""The stage that compares all documents with each other, at the size of PubMed Central.

    python benchmarks/bench_corpus_duplicates.py [NUMBER OF ARTICLES]

Sketches are made up (random bytes are what unlike articles have), with planted near copies, copies
and a text that many share; the stage reads them from shards as a build does. Prints seconds and the
most memory the process ever had, making up the sketches apart.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from biomistral.corpus.gathering import gather, sections, stored
from biomistral.corpus.layout import lay_out
from biomistral.corpus.shards import KEPT, KEPT_FILE, SCHEMA
from biomistral.models.rows import DOCUMENTS
from biomistral.recipe.corpora import CorpusSettings

SHARD = 10_000  # articles
NEAR, EXACT, SHARED = 0.02, 0.005, 0.002  # share of the articles planted


def make_up(folder: Path, count: int) -> dict[str, int]:
    """Write shards as ``make_shard`` does, and say what was planted."""
    rng = np.random.default_rng(1)
    shared = rng.integers(0, 256, 150, np.uint8)
    planted = {"near": 0, "exact": 0, "shared": 0}
    earlier = np.zeros((0,), KEPT)
    for number, start in enumerate(range(0, count, SHARD)):
        size = min(SHARD, count - start)
        kept = np.zeros(size, KEPT)
        kept["line"] = np.arange(size)
        kept["length"] = rng.integers(1_000, 10_000, size)
        kept["draw"], kept["digest"] = rng.integers(1, 2**63, (2, size))
        kept["id"] = np.arange(start, start + size) + 1
        kept["sketch"] = rng.integers(0, 256, (size, 150), np.uint8)
        kinds = rng.random(size)
        if len(earlier):
            for kind, low, high in (("near", 0, NEAR), ("exact", NEAR, NEAR + EXACT)):
                places = np.flatnonzero((kinds >= low) & (kinds < high))
                sources = earlier[rng.integers(0, len(earlier), len(places))]
                kept["sketch"][places] = sources["sketch"]
                if kind == "exact":
                    kept["digest"][places] = sources["digest"]
                else:  # a quarter of the bytes differ: three words in a hundred
                    changed = rng.random((len(places), 150)) < 0.25
                    kept["sketch"][places] += changed.astype(np.uint8)
                planted[kind] += len(places)
        places = np.flatnonzero(kinds > 1 - SHARED)
        kept["sketch"][places] = shared
        planted["shared"] += len(places)
        earlier = kept[kinds <= 1 - SHARED]
        shard = folder / f"{number:05d}"
        shard.mkdir()
        np.save(shard / KEPT_FILE, kept)
        lines = pa.table({"dropped": [""] * size})
        pq.write_table(lines, shard / DOCUMENTS)
    assert SCHEMA.names
    return planted


def measure(folder: Path) -> None:
    settings = CorpusSettings(articles=["*"])
    before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.perf_counter()
    found = gather(sorted(folder.iterdir()), settings, lambda *_: None)
    middle = time.perf_counter()
    rows = sum(
        part.num_rows
        for part in lay_out(stored(found), sections(found, settings), 2048, "best_fit")
    )
    after = resource.getrusage(resource.RUSAGE_SELF)
    codes = np.bincount(found.codes, minlength=5)
    print(
        f"documents {len(found.codes):,}: same words {codes[2]:,}, nearly {codes[3]:,}; "
        f"{rows:,} rows\n"
        f"compared in {middle - start:.1f} s, laid out in {time.perf_counter() - middle:.1f} s "
        f"({after.ru_utime - before.ru_utime:.1f} s of processor); most memory "
        f"{after.ru_maxrss / 1e6:.2f} GB, of which {before.ru_maxrss / 1e6:.2f} GB before it began; "
        f"state {KEPT.itemsize} bytes a document"
    )


def main() -> None:
    if len(sys.argv) == 3:
        measure(Path(sys.argv[2]))
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_500_000
    with tempfile.TemporaryDirectory() as name:
        print("planted:", make_up(Path(name), count))
        # A process of its own, so that its memory is its own.
        subprocess.run([sys.executable, __file__, "measure", name], check=True)


if __name__ == "__main__":
    main()
