"""The compiled loops: what C and Python say of each other, and types that a compiler may lack."""

from __future__ import annotations

import shutil

import pytest

from biomistral.merging import kernels

needs_compiler = pytest.mark.skipif(
    shutil.which("cc") is None and shutil.which("gcc") is None, reason="no C compiler found"
)


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """A cache of its own, and nothing remembered."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CC", raising=False)
    kernels.library.cache_clear()
    yield tmp_path / "cache" / "biomistral"
    kernels.library.cache_clear()


@needs_compiler
def test_structures_have_the_size_that_c_gives_them():
    import ctypes

    assert ctypes.sizeof(kernels.Place) == 16
    assert ctypes.sizeof(kernels.Share) == 16 + 8 + 8 + 4 + 4 + 4 + 4 + 4 + 4  # padded to 8


@needs_compiler
def test_without_half_precision_in_the_compiler_the_other_types_are_built(
    fresh, monkeypatch, tmp_path
):
    source = tmp_path / "kernels.c"
    package = kernels.SOURCE.parent.parent
    text = kernels.SOURCE.read_text().replace('"../', f'"{package}/')  # headers are not copied
    source.write_text("#undef __FLT16_MAX__\n#define _Float16 no_such_type\n" + text)
    monkeypatch.setattr(kernels, "SOURCE", source)
    assert kernels.built_types() == {"bfloat16", "float32"}


def test_without_a_compiler_no_type_is_built(fresh, monkeypatch):
    monkeypatch.setenv("CC", "false")
    assert kernels.built_types() == frozenset()
