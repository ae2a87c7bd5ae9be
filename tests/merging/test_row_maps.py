"""Mapped rows: what a slow loop over rows and models gives, whatever the blocks."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from biomistral.merging.row_maps import LACKING, UNUSED, MappedRows, RowMap
from biomistral.models.safetensors_files import StoredTensor

WIDTH = 3
ROWS = [2, LACKING, UNUSED, 0, LACKING, 1, UNUSED]
DONOR_ROWS = [[0, LACKING], [1, 2]]


def stored(name, shape, dtype="float32"):
    return StoredTensor(name, shape, dtype, Path("none"), 0)


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    shapes = {"own": (3, WIDTH), "first": (2, WIDTH), "second": (4, WIDTH)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def mapped(tensors, rows=ROWS, donor_rows=DONOR_ROWS):
    row_map = RowMap(
        own=stored("own", tuple(tensors["own"].shape)),
        rows=np.array(rows, np.int64),
        donors=tuple(stored(name, tuple(tensors[name].shape)) for name in ("first", "second")),
        donor_rows=np.array(donor_rows, np.int64).reshape(-1, 2),
    )
    return MappedRows(pickle.loads(pickle.dumps(row_map)), lambda s: tensors[s.name])


def by_hand(tensors):
    own, first, second = (tensors[name].float() for name in ("own", "first", "second"))
    rows = [own[2], first[0], None, own[0], (first[1] + second[2]) / 2, own[1], None]
    mean = torch.stack([row for row in rows if row is not None]).double().mean(dim=0).float()
    return torch.stack([mean if row is None else row for row in rows])


def test_rows_are_moved_filled_and_padded_as_by_hand(tensors):
    values = mapped(tensors)
    assert values.numel() == len(ROWS) * WIDTH
    torch.testing.assert_close(values[:].view(-1, WIDTH), by_hand(tensors), rtol=0, atol=1e-7)


@pytest.mark.parametrize("block", [1, 2, 4, 5, 7, 20, 21, 50])
def test_blocks_need_not_end_with_rows(tensors, block):
    values = mapped(tensors)
    total = values.numel()
    parts = [values[start : min(start + block, total)] for start in range(0, total, block)]
    assert torch.equal(torch.cat(parts), values[:])


def test_an_empty_slice_is_empty(tensors):
    values = mapped(tensors)
    assert values[4:4].numel() == values[values.numel() :].numel() == 0


def test_values_are_float32_whatever_is_stored(tensors):
    halves = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    values = mapped(halves)[:]
    assert values.dtype == torch.float32
    torch.testing.assert_close(values.view(-1, WIDTH), by_hand(halves), rtol=0, atol=1e-7)


def test_a_bias_of_the_head_has_one_element_per_row(tensors):
    biases = {name: tensor[:, 0].contiguous() for name, tensor in tensors.items()}
    assert torch.equal(mapped(biases)[:], mapped(tensors)[:].view(-1, WIDTH)[:, 0])


def test_without_donors_rows_are_only_moved(tensors):
    row_map = RowMap(stored("own", (3, WIDTH)), np.array([1, 1, 2]), (), np.empty((0, 0), np.int64))
    values = MappedRows(row_map, lambda s: tensors["own"])
    assert row_map.shape == (3, WIDTH)
    assert torch.equal(values[:].view(-1, WIDTH), tensors["own"][[1, 1, 2]])


def test_the_mean_row_is_the_same_for_any_number_of_threads():
    generator = torch.Generator().manual_seed(0)
    own = torch.randn(3000, 8, generator=generator)
    rows = np.array([*range(3000), UNUSED])
    row_map = RowMap(stored("own", (3000, 8)), rows, (), np.empty((0, 0), np.int64))
    before = torch.get_num_threads()
    try:
        results = []
        for num_threads in (1, 2):
            torch.set_num_threads(num_threads)
            results.append(MappedRows(row_map, lambda s: own)[3000 * 8 :])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)
    torch.testing.assert_close(results[0], own.double().mean(dim=0).float(), rtol=0, atol=1e-7)
