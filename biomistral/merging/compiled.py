"""Merge one tensor with the compiled inner loops: the same results as ``methods``, without PyTorch.

What is found out about a whole tensor first (a cosine, a threshold, a norm) and what is then done
with every element are calls into ``kernels.c``, each on a range of the tensor; the ranges of one
tensor may be worked on by several threads. Knows nothing about names, files or settings.
"""

from __future__ import annotations

import ctypes
import math
import os
import struct
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from biomistral.merging import kernels
from biomistral.merging.kernels import CHUNK, Place, Share

# As in methods: what counts as parallel, and as zero.
_PARALLEL = 0.9995
_TINY = 1e-8
# Bits of a float32 magnitude, and those left of it when magnitudes are first counted roughly.
_MAGNITUDE_BITS, _ROUGH_BITS = 31, 15
_SAMPLED_CHUNKS = 64
# Counters of single magnitudes at most: 16 MB for one range, 32 MB for all ranges together.
_MOST_COUNTERS, _MOST_IN_ALL = 1 << 22, 1 << 23

Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


@dataclass(frozen=True)
class Part:
    """One model of a sum of task vectors."""

    place: Place
    weight: float = 1.0
    density: float = 1.0
    key: int = 0


@dataclass
class Work:
    """One tensor of ``num_elements``, cut into ``num_ranges`` that ``run`` (a ``map``) works on.

    ``bad`` collects what the kernels report: bit i for NaN or infinity in input i.
    """

    num_elements: int
    num_ranges: int = 1
    run: Map = map
    bad: int = field(default=0)

    def ranges(self) -> list[tuple[int, int]]:
        """Cut the tensor into ranges that start at a multiple of a chunk."""
        num_chunks = -(-self.num_elements // CHUNK)
        per_range = max(1, -(-num_chunks // self.num_ranges)) * CHUNK
        return [
            (start, min(start + per_range, self.num_elements))
            for start in range(0, self.num_elements, per_range)
        ]

    def each(self, function: Callable[[int, int, int], int]) -> None:
        """Call ``function(index, start, stop)`` for each range; its status is kept or raised."""
        ranges = self.ranges()
        for status in self.run(lambda index: function(index, *ranges[index]), range(len(ranges))):
            if status < 0:
                raise OSError(-status, os.strerror(-status))
            self.bad |= status


def linear(
    work: Work, places: Sequence[Place], weights: Sequence[float], divisor: float = 1.0
) -> None:
    """Write the weighted sum of all places but the last into the last."""
    all_places, factors = _array(Place, places), _array(ctypes.c_float, weights)
    merge = _library().merge_linear
    work.each(lambda _, *at: merge(all_places, factors, len(weights), divisor, *at))


def slerp(work: Work, base: Place, other: Place, out: Place, t: float) -> None:
    """Write the spherical interpolation between two tensors."""
    cosine = _cosine(work, base, other)
    if abs(cosine) > _PARALLEL:
        factors = (1.0 - t, t)
    else:
        angle = math.acos(cosine)
        factors = (
            math.sin((1.0 - t) * angle) / math.sin(angle),
            math.sin(t * angle) / math.sin(angle),
        )
    linear(work, (base, other, out), factors)


def task_vectors(
    work: Work,
    base: Place,
    parts: Sequence[Part],
    out: Place,
    *,
    sparsity: int,
    elect: bool,
    normalize: bool,
    scale: float,
    rescale: str = "none",
) -> None:
    """Write the base plus the scaled sum of sparse, weighted task vectors."""
    # A vector alone wins every election.
    elect = elect and len(parts) > 1
    divisor = math.fsum(part.weight for part in parts)
    divisor = divisor if abs(divisor) >= _TINY else 1.0
    # Of each part, a share per range.
    by_part = []
    for index, part in enumerate(parts, start=1):
        alone = Work(work.num_elements, work.num_ranges, work.run)  # base and part: inputs 0 and 1
        by_part.append(_sparse(alone, base, part, sparsity, rescale))
        work.bad |= (alone.bad & 1) | (alone.bad >> 1 << index)
    shares = [_array(Share, of_range) for of_range in zip(*by_part, strict=True)]
    places = _array(Place, (base, *(part.place for part in parts), out))
    merge = _library().merge_task_vectors
    work.each(
        lambda index, *at: merge(
            places, shares[index], len(parts), elect, normalize, divisor, scale, *at
        )
    )


def compare(work: Work, a: Place, b: Place) -> tuple[float, float, float, float, int]:
    """Return the sums of a*b, a*a, b*b, (a-b)*(a-b), and how many elements have equal signs."""
    *sums, same = _compared(work, a, b, difference=True)
    return (sums[0], sums[1], sums[2], sums[3], int(same))


# --- numbers for a whole tensor -------------------------------------------------------------------


def _cosine(work: Work, a: Place, b: Place) -> float:
    dot, a_squared, b_squared, *_ = _compared(work, a, b, difference=False)
    for norm in (math.sqrt(a_squared), math.sqrt(b_squared)):
        dot /= norm if norm > _TINY else 1.0
    return max(-1.0, min(1.0, dot))


def _compared(work: Work, a: Place, b: Place, *, difference: bool) -> list[float]:
    places, merge = _array(Place, (a, b)), _library().merge_compare
    return _sums(
        work,
        kernels.COMPARED,
        lambda sums, start, stop: merge(places, start, stop, difference, sums),
    )


def _sums(work: Work, num: int, function: Callable[[Any, int, int], int]) -> list[float]:
    """Let ``function`` fill in ``num`` sums for each chunk; return the sums over all, in order."""
    num_chunks = -(-work.num_elements // CHUNK)
    sums = (ctypes.c_double * (num_chunks * num))()
    size = ctypes.sizeof(ctypes.c_double)

    def fill(_: int, start: int, stop: int) -> int:
        at = ctypes.byref(sums, start // CHUNK * num * size)
        return function(ctypes.cast(at, ctypes.POINTER(ctypes.c_double)), start, stop)

    work.each(fill)
    add = _library().merge_add
    return [
        add(
            ctypes.cast(ctypes.byref(sums, i * size), ctypes.POINTER(ctypes.c_double)),
            num_chunks,
            num,
        )
        for i in range(num)
    ]


# --- ways to make a task vector sparse: one share for each range ----------------------------------


def _share(part: Part, sparsity: int = kernels.KEEP_ALL, **numbers: float) -> Share:
    return Share(
        place=part.place, weight=part.weight, sparsity=sparsity, **{"factor": 1.0, **numbers}
    )


def _sparse(work: Work, base: Place, part: Part, sparsity: int, rescale: str) -> list[Share]:
    if sparsity == kernels.KEEP_LARGEST:
        return _trimmed(work, base, part)
    if sparsity == kernels.KEEP_RANDOM:
        return _thinned(work, base, part, rescale=rescale)
    return _whole(work, part)


def _whole(work: Work, part: Part) -> list[Share]:
    return [_share(part) for _ in work.ranges()]


def _thinned(work: Work, base: Place, part: Part, *, rescale: str) -> list[Share]:
    """Keep elements at random, each with chance ``density``."""
    below = round(part.density * 2**32)
    if below == 2**32:
        return _whole(work, part)
    factor = 1.0 / part.density if rescale == "density" else 1.0
    share = _share(part, kernels.KEEP_RANDOM, key=part.key, keep_below=below, factor=factor)
    if rescale == "l1_norm":
        sum_magnitudes = _library().merge_magnitudes
        whole, left = _sums(
            work, 2, lambda sums, *at: sum_magnitudes(base, ctypes.byref(share), *at, sums)
        )
        share.factor = whole / left if left > _TINY else 1.0
    return [share] * len(work.ranges())


def _trimmed(work: Work, base: Place, part: Part) -> list[Share]:
    """Keep the int(density x n) elements of largest magnitude; of equal ones the first."""
    num_kept = int(part.density * work.num_elements)
    if part.density == 1:
        return _whole(work, part)
    if num_kept == 0:
        return [_share(part, kernels.KEEP_LARGEST, threshold=math.inf) for _ in work.ranges()]
    threshold, num_equal = _cut(work, base, part.place, num_kept)
    return [
        _share(part, kernels.KEEP_LARGEST, threshold=threshold, num_equal=num) for num in num_equal
    ]


# --- the magnitude at a rank ----------------------------------------------------------------------


def _cut(work: Work, base: Place, model: Place, num_kept: int) -> tuple[float, list[int]]:
    """Find where the ``num_kept`` largest magnitudes of ``model - base`` end.

    Returns the threshold, and for each range how many elements equal to it are kept. Exact: the
    magnitudes near the threshold are counted one by one; where that is, a sample tells, or, if it
    misleads, a rough count of all elements.
    """
    counter = _Counter(work, base, model)
    num_chunks = -(-work.num_elements // CHUNK)
    for every in dict.fromkeys((max(1, num_chunks // _SAMPLED_CHUNKS), 1)):
        low, high = counter.neighbourhood(num_kept, every)
        most = min(_MOST_COUNTERS, _MOST_IN_ALL // len(work.ranges()))
        if (every == 1 or high - low <= most) and (
            found := counter.cut_between(low, high, num_kept)
        ):
            return found
    raise AssertionError("a rank that no element has")


class _Counter:
    """Counts magnitudes of ``model - base`` by their bits, which order as the magnitudes do."""

    def __init__(self, work: Work, base: Place, model: Place) -> None:
        self.work = work
        self.places = _array(Place, (base, model))

    def neighbourhood(self, rank: int, every: int) -> tuple[int, int]:
        """Return bits between which the ``rank``-th largest magnitude must be, by a sample.

        The sample is one chunk of ``every``; with all of them (1) it is certain.
        """
        size = 1 << _ROUGH_BITS
        shift = _MAGNITUDE_BITS - _ROUGH_BITS
        work = self.work if every == 1 else Work(self.work.num_elements)  # a sample is soon taken
        num_parts = len(work.ranges())
        counts = _counters(size * num_parts)
        work.each(
            lambda index, *at: _library().merge_count(
                *(self.places, *at, every, shift, 0, size, ctypes.byref(ctypes.c_int64())),
                _part_of(counts, size * index),
            )
        )
        _, sampled = _rank(counts, num_parts, size, work.num_elements + 1)
        place = rank / work.num_elements * sampled
        # Neighbours in a tensor are alike, so a sample of chunks strays further than one of elements.
        margin = 0 if every == 1 else sampled / 100 + 6 * math.sqrt(sampled)
        first, _ = _rank(counts, num_parts, size, max(1, round(place - margin)))
        last, _ = _rank(counts, num_parts, size, min(sampled, round(place + margin)))
        return last << shift, first + 1 << shift

    def cut_between(self, low: int, high: int, rank: int) -> tuple[float, list[int]] | None:
        """Return what ``_cut`` does, or None if the rank is not between ``low`` and ``high``."""
        ranges = self.work.ranges()
        size = high - low
        counts = _counters(size * len(ranges))
        above = (ctypes.c_int64 * len(ranges))()

        def count(index: int, start: int, stop: int) -> int:
            status: int = _library().merge_count(
                *(self.places, start, stop, 1, 0, low, high),
                ctypes.cast(ctypes.byref(above, 8 * index), ctypes.POINTER(ctypes.c_int64)),
                _part_of(counts, size * index),
            )
            return status

        self.work.each(count)
        if sum(above) >= rank:
            return None
        index, left = _rank(counts, len(ranges), size, rank - sum(above))
        if index < 0:
            return None
        num_equal = []
        for place in range(len(ranges)):
            kept = min(left, counts[size * place + index])
            left -= kept
            num_equal.append(kept)
        (threshold,) = struct.unpack("<f", struct.pack("<I", low + index))
        return threshold, num_equal


def _rank(counts: Any, num_parts: int, size: int, rank: int) -> tuple[int, int]:
    left = ctypes.c_int64()
    index = _library().merge_rank(counts, num_parts, size, rank, ctypes.byref(left))
    return index, left.value


def _part_of(counts: Any, start: int) -> Any:
    return ctypes.cast(ctypes.byref(counts, 4 * start), ctypes.POINTER(ctypes.c_uint32))


_of_thread = threading.local()


def _counters(num: int) -> Any:
    """Return ``num`` counters at zero: memory is kept, for new memory costs more than counting."""
    if num > getattr(_of_thread, "num_counters", 0):
        _of_thread.counters = (ctypes.c_uint32 * num)()
        _of_thread.num_counters = num
    else:
        ctypes.memset(_of_thread.counters, 0, 4 * num)
    return _of_thread.counters


# --- ctypes ---------------------------------------------------------------------------------------


def _array(kind: Any, items: Sequence[Any]) -> Any:
    return (kind * len(items))(*items)


def _library() -> ctypes.CDLL:
    loaded = kernels.library()
    assert loaded is not None, "asked for without looking"
    return loaded
