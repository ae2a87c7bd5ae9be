"""Which documents repeat an earlier one: the same article, the same words, or nearly the same.

Near duplicates are found by locality-sensitive hashing: six bytes of a sketch in a row make a band,
documents that agree in one of the 25 bands are compared by their whole sketches, and those alike
are tied together. Of all that are tied, directly or through others, the first in the order given is
kept. At a share of 0.75 of runs in common (three words in a hundred edited) two documents meet in
some band with a probability of 0.99, at 0.9 with 1 - 10^-8. Knows nothing about texts or files.

Shapes: N documents, of which P are candidates; 150 bytes a sketch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from biomistral.corpus.sketches import BINS, NO_WORDS, Sketch, similarity
from biomistral.progress import Progress, ignore

BAND_BYTES = 6
BANDS = BINS // BAND_BYTES
REASONS = ("", "same_article", "duplicate", "near_duplicate")  # by code
_PAIRS_AT_A_TIME = 100_000  # compared: 30 MB of sketches

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Verdicts:
    """What was found for each document."""

    codes: NDArray[np.uint8]  # (N,) place in REASONS
    kept: Places  # (N,) the document that it repeats; itself if it is kept


def find_duplicates(
    ids: NDArray[np.uint64],
    digests: NDArray[np.uint64],
    sketches: Sketch,
    least_similarity: float | None,
    progress: Progress = ignore,
) -> Verdicts:
    """Compare all documents, given in the order in which the first is kept.

    ``ids`` (N,) is 0 where a document's id says nothing about others; ``digests`` (N,) and
    ``sketches`` (N, 150) are those of ``sketches.sketch``. ``least_similarity`` in (0, 1] is the
    share of runs in common that makes a near duplicate; None looks for none.
    """
    count = len(digests)
    codes, kept = np.zeros(count, np.uint8), np.arange(count)
    for code, marks, without in ((1, ids, 0), (2, digests, NO_WORDS)):
        left = np.flatnonzero((codes == 0) & (marks != without))
        first = _first_of_equals(marks[left])
        again = first != np.arange(len(left))
        codes[left[again]], kept[left[again]] = code, left[first[again]]
    if least_similarity is not None:
        left = np.flatnonzero((codes == 0) & (digests != NO_WORDS))
        first = _tie(sketches, left, least_similarity, progress)
        again = first != np.arange(len(left))
        codes[left[again]], kept[left[again]] = 3, left[first[again]]
    kept = kept[kept[kept]]  # a copy of a near duplicate repeats what that one repeats
    return Verdicts(codes, kept)


def _first_of_equals(marks: NDArray[np.uint64]) -> Places:
    """For each mark, the place where it stands first."""
    _, first, which = np.unique(marks, return_index=True, return_inverse=True)
    places: Places = first[which]
    return places


def _tie(sketches: Sketch, places: Places, least: float, progress: Progress) -> Places:
    """For each of the places (P,), the first (as an index into them) of all it is tied to."""
    roots = np.arange(len(places))
    for band in range(BANDS):
        progress(band, BANDS, "comparing documents")
        first, second = _pairs(_band_keys(sketches, places, band))
        apart = roots[first] != roots[second]
        pairs = np.unique(np.stack([first[apart], second[apart]]), axis=1)
        for a, b in _alike(sketches, places, pairs, least):
            roots = _joined(roots, a, b)
    return roots


def _band_keys(sketches: Sketch, places: Places, band: int) -> NDArray[np.uint64]:
    """The bytes of one band as one number per document.  # (P,)."""
    wide = np.zeros((len(places), 8), np.uint8)
    first = band * BAND_BYTES
    wide[:, :BAND_BYTES] = sketches[:, first : first + BAND_BYTES][places]
    return wide.view("<u8")[:, 0]


def _pairs(keys: NDArray[np.uint64]) -> tuple[Places, Places]:
    """Each document with an equal key before it: paired with the first and with the last of those.

    As many pairs as documents, also where a million have one key.
    """
    order = np.argsort(keys, kind="stable")
    by_key = keys[order]
    is_first = np.ones(len(keys), np.bool_)
    is_first[1:] = by_key[1:] != by_key[:-1]
    starts = np.maximum.accumulate(np.where(is_first, np.arange(len(keys)), 0))
    later = np.flatnonzero(~is_first)
    firsts = np.concatenate([order[starts[later]], order[later - 1]])
    return firsts, np.concatenate([order[later], order[later]])


def _alike(
    sketches: Sketch, places: Places, pairs: NDArray[np.int64], least: float
) -> Iterator[tuple[Places, Places]]:
    """The pairs (2, pairs) whose sketches say so, part by part."""
    for start in range(0, pairs.shape[1], _PAIRS_AT_A_TIME):
        first, second = pairs[:, start : start + _PAIRS_AT_A_TIME]
        shared = similarity(sketches[places[first]], sketches[places[second]])
        alike = shared >= least
        yield first[alike], second[alike]


def _joined(roots: Places, first: Places, second: Places) -> Places:
    """Roots after these pairs are tied; a root is the first of all that are tied to it."""
    parents = roots.tolist() if len(first) else []

    def root_of(place: int) -> int:
        while parents[place] != place:
            parents[place] = parents[parents[place]]
            place = parents[place]
        return place

    for a, b in zip(first.tolist(), second.tolist(), strict=True):
        left, right = root_of(a), root_of(b)
        parents[max(left, right)] = min(left, right)
    if not parents:
        return roots
    joined = np.array(parents)
    while not np.array_equal(joined, joined[joined]):
        joined = joined[joined]
    return joined
