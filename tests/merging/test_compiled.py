"""Compiled loops, one tensor at a time: exact ranks, fixed sums, errors of files."""

from __future__ import annotations

import errno
import itertools
import math
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from biomistral.merging import compiled, kernels
from biomistral.merging.compiled import Part, Work
from biomistral.merging.kernels import KEEP_LARGEST, KEEP_RANDOM, Place

pytestmark = pytest.mark.skipif(
    kernels.library() is None, reason="no C compiler: the compiled loops cannot be built"
)


@pytest.fixture
def place_of(tmp_path):
    """Return a function from float32 values to the place of a file that holds them."""
    files = []

    def make(values):
        path = tmp_path / str(len(files))
        path.write_bytes(np.asarray(values, dtype="<f4").tobytes())
        files.append(os.open(path, os.O_RDWR))
        return Place(files[-1], kernels.TYPES["float32"], 0)

    yield make
    for file in files:
        os.close(file)


def values_at(place, num):
    return np.frombuffer(os.pread(place.file, 4 * num, 0), dtype="<f4")


@pytest.mark.parametrize("num_ranges", [1, 2, 7])
def test_ranges_cover_a_tensor_and_start_at_chunks(num_ranges):
    for num in (1, 4096, 4097, 50_000):
        ranges = Work(num, num_ranges).ranges()
        assert ranges[0][0] == 0
        assert ranges[-1][1] == num
        assert all(start % kernels.CHUNK == 0 for start, _ in ranges)
        assert all(one[1] == two[0] for one, two in itertools.pairwise(ranges))
        assert len(ranges) <= num_ranges


def test_work_on_nothing_does_nothing(place_of):
    empty = place_of([])
    compiled.slerp(Work(0), empty, empty, empty, 0.5)
    compiled.task_vectors(
        Work(0),
        empty,
        [Part(empty, density=0.5)],
        empty,
        sparsity=KEEP_LARGEST,
        elect=True,
        normalize=True,
        scale=1.0,
    )


@pytest.mark.parametrize("num_ranges", [1, 3])
@pytest.mark.parametrize("density", [1e-5, 0.2, 0.5, 0.999])
@pytest.mark.parametrize("digits", [2, 8])  # two: thousands are equal
def test_a_trimmed_vector_is_that_of_a_stable_sort(place_of, density, digits, num_ranges):
    rng = np.random.default_rng(0)
    delta = np.round(rng.standard_normal(300_001), digits).astype(np.float32)
    base, out = place_of(np.zeros_like(delta)), place_of(np.ones_like(delta))
    compiled.task_vectors(
        Work(len(delta), num_ranges),
        base,
        [Part(place_of(delta), density=density)],
        out,
        sparsity=KEEP_LARGEST,
        elect=True,
        normalize=False,
        scale=1.0,
    )
    kept = np.argsort(-np.abs(delta), kind="stable")[: int(density * len(delta))]
    expected = np.zeros_like(delta)
    expected[kept] = delta[kept]
    assert np.array_equal(values_at(out, len(delta)), expected)


def test_magnitudes_of_all_sizes_are_ranked(place_of):
    """From the smallest number there is to the largest: no range of magnitudes is assumed."""
    delta = np.array([3e38, 1e-45, 0.0, 1e-38, 1.0, -3.4e38, 1e10, -1e-20], dtype=np.float32)
    base, out = place_of(np.zeros(8)), place_of(np.zeros(8))
    part = Part(place_of(delta), density=0.5)
    compiled.task_vectors(
        Work(8),
        base,
        [part],
        out,
        sparsity=KEEP_LARGEST,
        elect=True,
        normalize=False,
        scale=1.0,
    )
    expected = np.where(np.abs(delta) >= 1.0, delta, 0)
    assert np.array_equal(values_at(out, 8), expected)


@pytest.mark.parametrize("num", [1, 4096, 4097, 123_456])
def test_comparing_gives_the_sums_of_numpy(place_of, num):
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((2, num)).astype(np.float32)
    b[:: max(1, num // 5)] = 0
    dot, aa, bb, dd, same = compiled.compare(Work(num, 2), place_of(a), place_of(b))
    x, y = a.astype(np.float64), b.astype(np.float64)
    assert dot == pytest.approx(x @ y, rel=1e-9, abs=1e-9)
    assert (aa, bb) == (pytest.approx(x @ x), pytest.approx(y @ y))
    assert dd == pytest.approx((x - y) @ (x - y))
    assert same == np.sum(np.sign(a) == np.sign(b))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_bad_inputs_are_told_by_their_number(place_of, bad):
    good, spoilt = np.ones(5000), np.ones(5000)
    spoilt[4999] = bad
    work = Work(5000)
    places = [place_of(values) for values in (good, spoilt, good, good)]
    compiled.linear(work, places, [1.0, 1.0, 1.0])
    assert work.bad & 0b111 == 0b010


@pytest.mark.parametrize("sparsity", [KEEP_LARGEST, KEEP_RANDOM])
def test_of_several_models_the_bad_one_is_told(place_of, sparsity):
    good, spoilt = np.ones(5000), np.ones(5000)
    spoilt[4999] = math.nan
    work = Work(5000)
    compiled.task_vectors(
        work,
        place_of(np.zeros(5000)),
        [Part(place_of(values), density=0.5) for values in (good, spoilt, good)],
        place_of(good),
        sparsity=sparsity,
        elect=True,
        normalize=False,
        scale=1.0,
        rescale="l1_norm",
    )
    assert work.bad & 0b1111 == 0b0100


def test_few_counters_give_the_same_rank(place_of, monkeypatch):
    """With many ranges memory is bounded: the neighbourhood is made narrower first."""
    rng = np.random.default_rng(0)
    base, delta = place_of(np.zeros(300_001)), place_of(rng.standard_normal(300_001))
    many = compiled._cut(Work(300_001, 7), base, delta, 100_000)
    monkeypatch.setattr(compiled, "_MOST_IN_ALL", 7 << 16)
    assert compiled._cut(Work(300_001, 7), base, delta, 100_000) == many


def test_a_full_disk_is_the_error_of_the_system(place_of):
    with Path("/dev/full").open("wb", buffering=0) as full:
        out = Place(full.fileno(), kernels.TYPES["float32"], 0)
        with pytest.raises(OSError, match="No space left") as caught:
            compiled.linear(Work(5000), [place_of(np.ones(5000)), out], [1.0])
    assert caught.value.errno == errno.ENOSPC


def test_a_file_that_ends_too_early_is_an_error(place_of):
    short, out = place_of(np.ones(10)), place_of(np.ones(5000))
    with pytest.raises(OSError, match="No data available"):
        compiled.linear(Work(5000), [short, out], [1.0])


def test_equal_numbers_are_kept_from_the_front_over_all_ranges(place_of):
    num = 20_000
    base, out = place_of(np.zeros(num)), place_of(np.zeros(num))
    compiled.task_vectors(
        Work(num, 3),
        base,
        [Part(place_of(np.full(num, 0.25)), density=0.55)],
        out,
        sparsity=KEEP_LARGEST,
        elect=True,
        normalize=False,
        scale=1.0,
    )
    assert values_at(out, num)[:11_000].all()
    assert not values_at(out, num)[11_000:].any()


def test_rounding_to_bfloat16_is_to_nearest_even(place_of, tmp_path):
    bits = [0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF, 0x80000000, 0x00000001]
    values = [struct.unpack("<f", struct.pack("<I", b))[0] for b in bits]
    path = tmp_path / "out"
    path.write_bytes(bytes(2 * len(bits)))
    with path.open("r+b") as stream:
        out = Place(stream.fileno(), kernels.TYPES["bfloat16"], 0)
        compiled.linear(Work(len(bits)), [place_of(values), out], [1.0])
    rounded = np.frombuffer(path.read_bytes(), dtype="<u2").tolist()
    assert rounded == [0x3F80, 0x3F82, 0x3F81, 0x3F80, 0x8000, 0x0000]
