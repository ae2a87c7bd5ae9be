"""A text as a digest and 150 bytes that say which other texts are nearly the same.

The text is cut into words without regard to case and punctuation (of scripts without blanks each
character is a word) and five words in a row make a run. All runs are thrown into 150 bins by one
hash; the least of each bin is kept, and of that one byte: one permutation hashing with optimal
densification (Shrivastava 2017, arXiv 1703.04664) and b-bit minwise hashing (Li and König 2010,
arXiv 0910.3349). The share of bytes that two sketches have in common tells the share of runs that
their texts have in common. Knows nothing about documents or files.

Shapes: C characters, W words, R runs.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biomistral.corpus.compiled import library

WIDTH = 5  # words in a run: at one word in a hundred edited, two texts share 90 % of their runs
BINS = 150  # bytes of a sketch
NO_WORDS = 0  # digest of a text without words

Numbers = NDArray[np.uint64]
Sketch = NDArray[np.uint8]

_BLOCK_CHARACTERS = 1_000_000  # hashed at a time: bounds memory for an article of 100 MB
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
_SEPARATOR, _LETTER, _IDEOGRAPH = 0, 1, 2
_IDEOGRAPHS = ((0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF))


def sketch(text: str) -> tuple[int, Sketch]:
    """Return the digest of a text's words (64 bits) and the sketch of its runs.  # (150,).

    The digest of a text without words is ``NO_WORDS``.
    """
    blocks = [_words(block) for block in _blocks(text.lower())]
    words = np.concatenate(blocks) if blocks else np.empty(0, np.uint64)
    if not len(words):
        return NO_WORDS, np.zeros(BINS, np.uint8)
    digest = hashlib.blake2b(words.tobytes(), digest_size=8).digest()
    loops = library()
    if loops:
        found = np.empty(BINS, np.int64)
        width = min(WIDTH, len(words))
        loops.sketch_least(words.ctypes.data, len(words), width, _BASE, found.ctypes.data, BINS)
    else:
        found = _least_of_bins(_runs(words))
    return int.from_bytes(digest, "little") or 1, _filled_up(found)


def similarity(first: Sketch, second: Sketch) -> NDArray[np.float64]:
    """Estimated share of runs in common (Jaccard), row by row.  # (..., 150) -> (...).

    Two bytes are equal by chance once in 256 times, which is taken off.
    """
    equal = (first == second).mean(axis=-1)
    found: NDArray[np.float64] = (equal - 1 / 256) / (1 - 1 / 256)
    return found


def _blocks(text: str) -> Iterator[str]:
    """The text in parts of bounded size, cut at blanks where there is one."""
    start = 0
    while start < len(text):
        end = start + _BLOCK_CHARACTERS
        if end < len(text):
            blank = text.rfind(" ", start + 1, end)
            end = blank if blank > 0 else end
        yield text[start:end]
        start = end


def _words(text: str) -> Numbers:
    """One number per word, in order.  # (W,).

    A word's number is that of its characters as digits to an odd base, so all words come out of
    one running sum: (sum up to its end - sum up to its start) / base^start.
    """
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    loops = library()
    if loops:
        words = np.empty(len(codes) + 1, np.uint64)
        kinds_of_all = _kinds().ctypes.data
        count = loops.sketch_words(
            codes.ctypes.data, len(codes), kinds_of_all, _BASE, words.ctypes.data
        )
        return words[:count].copy()
    kinds = _kinds()[np.minimum(codes, 0xFFFF)]  # (C,)
    is_letter = kinds == _LETTER
    alone = kinds == _IDEOGRAPH
    before, after = np.zeros_like(is_letter), np.zeros_like(is_letter)
    before[1:], after[:-1] = is_letter[:-1], is_letter[1:]
    starts = np.flatnonzero((is_letter & ~before) | alone)
    ends = np.flatnonzero((is_letter & ~after) | alone) + 1
    powers, inverses = _powers(1 << max(12, len(codes).bit_length()))
    sums = np.zeros(len(codes) + 1, np.uint64)  # modulo 2^64
    np.cumsum(codes * powers[: len(codes)], out=sums[1:])
    return _mixed((sums[ends] - sums[starts]) * inverses[starts])


def _runs(words: Numbers) -> Numbers:
    """One number per five words in a row, or one for all if they are fewer.  # (R,)."""
    width = min(WIDTH, len(words))
    count = len(words) - width + 1
    runs = np.zeros(count, np.uint64)
    powers, _ = _powers(1 << 12)
    for place in range(width):
        runs += words[place : place + count] * powers[place]
    return _mixed(runs)


def _least_of_bins(runs: Numbers) -> NDArray[np.int64]:
    """The least run of each bin (its low 32 bits), or -1 where there is none.  # (150,)."""
    half = np.uint64(32)
    bins = ((runs >> half) * np.uint64(BINS)) >> half
    by_bin = np.sort((bins << half) | (runs & np.uint64(0xFFFFFFFF)))
    firsts = np.searchsorted(by_bin, np.arange(BINS, dtype=np.uint64) << half)
    least = by_bin[np.minimum(firsts, len(by_bin) - 1)]
    is_there = (least >> half) == np.arange(BINS, dtype=np.uint64)
    return np.where(is_there, (least & np.uint64(0xFFFFFFFF)).astype(np.int64), -1)


def _filled_up(least: NDArray[np.int64]) -> Sketch:
    """The low byte of each bin's least run; an empty bin borrows from another."""
    filled = least >= 0
    chosen = np.arange(BINS)
    for lenders in _lenders():
        empty = ~filled[chosen]
        if not empty.any():
            break
        chosen[empty] = lenders[empty]
    else:  # not one of many lenders was filled: only with one or two runs
        chosen[~filled[chosen]] = int(np.flatnonzero(filled)[0])
    sketch_bytes: Sketch = (least[chosen] & 0xFF).astype(np.uint8)
    return sketch_bytes


def _mixed(numbers: Numbers) -> Numbers:
    """Spread every bit over all others (the finalizer of SplitMix64)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


@functools.cache
def _lenders() -> NDArray[np.int64]:
    """For each attempt and bin, the bin to borrow from: the same for all texts.  # (512, 150)."""
    places = np.arange(1, 512 * BINS + 1, dtype=np.uint64) * np.uint64(_BASE)
    return (_mixed(places) % np.uint64(BINS)).astype(np.int64).reshape(512, BINS)


@functools.lru_cache(maxsize=4)
def _powers(count: int) -> tuple[Numbers, Numbers]:
    """Powers of the base and of its inverse, modulo 2^64."""

    def powers(base: int) -> Numbers:
        factors = np.full(count, base, np.uint64)
        factors[0] = 1
        return np.cumprod(factors, dtype=np.uint64)

    return powers(_BASE), powers(pow(_BASE, -1, 1 << 64))


@functools.cache
def _kinds() -> NDArray[Any]:
    """What each character is; those past 65,535 are taken for ideographs."""
    kinds = np.fromiter((chr(code).isalnum() for code in range(0x10000)), np.uint8, 0x10000)
    for first, last in _IDEOGRAPHS:
        kinds[first : last + 1] *= _IDEOGRAPH
    kinds[0xFFFF] = _IDEOGRAPH
    return kinds
