"""Mapped files: the values that were stored, and files that stay as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from biomistral.models.mapped import MappedFiles
from biomistral.models.safetensors_files import read_header

TENSORS = {
    "matrix": torch.arange(6, dtype=torch.bfloat16).view(2, 3),
    "none": torch.empty((0, 4)),
    "one": torch.tensor(2.5),
}


def test_mapped_tensors_are_those_that_were_stored(tmp_path):
    save_file(TENSORS, tmp_path / "a.safetensors")
    files = MappedFiles()
    for stored in read_header(tmp_path / "a.safetensors"):
        read = files.read(stored)
        assert read.dtype == TENSORS[stored.name].dtype
        assert torch.equal(read, TENSORS[stored.name])


def test_writing_to_a_mapped_tensor_changes_no_file(tmp_path):
    save_file(TENSORS, tmp_path / "a.safetensors")
    before = (tmp_path / "a.safetensors").read_bytes()
    (stored,) = (s for s in read_header(tmp_path / "a.safetensors") if s.name == "matrix")
    MappedFiles().read(stored).zero_()
    assert (tmp_path / "a.safetensors").read_bytes() == before


def test_no_memory_is_set_aside_for_pages_that_nobody_writes_to(tmp_path):
    save_file(TENSORS, tmp_path / "a.safetensors")
    files = MappedFiles()
    files.read(read_header(tmp_path / "a.safetensors")[0])
    told = Path("/proc/self/smaps")
    _, _, after = (told.read_text() if told.is_file() else "").partition(str(tmp_path))
    flags = [line for line in after.splitlines() if line.startswith("VmFlags:")]
    if not flags:
        pytest.skip("this system does not tell of its mappings")
    assert "nr" in flags[0].split()
