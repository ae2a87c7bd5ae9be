"""Words in a row, as numbers: how texts that have passages in common are found.

A text is cut into words without regard to case, punctuation and compatibility forms; of scripts
without blanks (Chinese, Japanese) each character is a word. A number of 64 bits stands for each run
of ``width`` words; a chance match is about one in 10^10 texts of an article's length against a
million runs. Knows nothing about questions or documents.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from biomistral.errors import InputError

WIDTH = 13  # words, as in arXiv 2005.14165

Hashes = NDArray[np.uint64]

_CHARACTERS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(f"[{_CHARACTERS}]|[^\\W_{_CHARACTERS}]+")
_FACTOR = 0x9E3779B97F4A7C15  # odd, so that powers of it lose nothing
_MOST_WORDS_KNOWN = 1_000_000


class Runs:
    """Cut texts into runs of words. Remembers the numbers of words it has seen."""

    def __init__(self, width: int = WIDTH) -> None:
        self.width = width
        self._numbers: dict[str, int] = {}
        powers = [pow(_FACTOR, place, 1 << 64) for place in range(width)]
        self._powers = np.array(powers, dtype=np.uint64)

    def of(self, text: str) -> Hashes:
        """Return the number of each run of words, in order; none if the text is shorter."""
        words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
        count = len(words) - self.width + 1
        if count <= 0:
            return np.empty(0, dtype=np.uint64)
        numbers = np.fromiter(map(self._number, words), dtype=np.uint64, count=len(words))
        runs = np.zeros(count, dtype=np.uint64)
        for place, power in enumerate(self._powers):
            runs += numbers[place : place + count] * power  # modulo 2^64
        return runs

    def _number(self, word: str) -> int:
        number = self._numbers.get(word)
        if number is None:
            if len(self._numbers) >= _MOST_WORDS_KNOWN:
                self._numbers.clear()
            digest = hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=8).digest()
            number = self._numbers[word] = int.from_bytes(digest, "big")
        return number


def are_in(runs: Hashes, known: Hashes) -> NDArray[np.bool_]:
    """Whether each of ``runs`` is in ``known``, which is sorted."""
    if not len(known):
        return np.zeros(len(runs), dtype=np.bool_)
    places = np.minimum(np.searchsorted(known, runs), len(known) - 1)
    found: NDArray[np.bool_] = known[places] == runs
    return found


def write_runs(path: Path, runs: Iterable[Hashes], width: int) -> int:
    """Write the numbers of runs to a file, sorted and each once; return how many they are."""
    parts = list(runs)
    known = np.unique(np.concatenate(parts)) if parts else np.empty(0, dtype=np.uint64)
    schema = pa.schema([("run", pa.uint64())]).with_metadata({"words": str(width)})
    pq.write_table(pa.table([pa.array(known)], schema=schema), path, compression="zstd")
    return len(known)


def read_runs(path: Path) -> tuple[Hashes, int]:
    """Return the sorted numbers of a file, and how many words each stands for.

    Raises ``InputError`` if it is missing or something else.
    """
    try:
        table = pq.read_table(path)
        return table["run"].to_numpy(), int(table.schema.metadata[b"words"])
    except (OSError, pa.ArrowException, KeyError, TypeError) as error:
        raise InputError(f"{path}: is no file of word runs ({error})") from None
