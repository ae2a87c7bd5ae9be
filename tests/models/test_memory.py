"""Free memory is a number of bytes between nothing and all there is."""

from __future__ import annotations

import os

import torch

from biomistral.models import memory


def test_it_is_less_than_the_machine_has():
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < memory.free_memory_bytes(torch.device("cpu")) <= whole


def test_it_is_read_in_kibibytes(monkeypatch, tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:     7 kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    assert memory.free_memory_bytes(torch.device("cpu")) == 7 * 1024


def test_systems_without_that_file_give_what_is_built_in(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "none")
    assert memory.free_memory_bytes(torch.device("cpu")) > 2**20


def test_giving_memory_back_is_no_error_where_the_c_library_is_another(monkeypatch):
    def missing(_):
        raise OSError("no such library")

    memory.give_back_memory()
    monkeypatch.setattr(memory.ctypes, "CDLL", missing)
    memory.give_back_memory()
