"""The compiled loops: built once, found again, and done without where they cannot be built."""

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
def test_the_library_is_built_once(fresh, monkeypatch):
    assert kernels.library() is not None
    (built,) = fresh.iterdir()
    kernels.library.cache_clear()
    monkeypatch.setenv("CC", "false")
    assert kernels.library() is not None  # it was found, not built
    assert list(fresh.iterdir()) == [built]


@needs_compiler
def test_another_source_is_another_library(fresh, monkeypatch, tmp_path):
    kernels.library()
    source = tmp_path / "kernels.c"
    source.write_text(kernels.SOURCE.read_text() + "/* changed */\n")
    monkeypatch.setattr(kernels, "SOURCE", source)
    kernels.library.cache_clear()
    assert kernels.library() is not None
    assert len(list(fresh.iterdir())) == 2


@pytest.mark.parametrize("compiler", ["false", "/no/such/compiler"])
def test_without_a_compiler_there_is_no_library_and_nothing_is_left(fresh, monkeypatch, compiler):
    monkeypatch.setenv("CC", compiler)
    assert kernels.library() is None
    assert list(fresh.iterdir()) == []


def test_without_a_place_to_write_to_there_is_no_library(fresh, tmp_path):
    (tmp_path / "cache").write_text("a file")
    assert kernels.library() is None


@needs_compiler
def test_structures_have_the_size_that_c_gives_them():
    import ctypes

    assert ctypes.sizeof(kernels.Place) == 16
    assert ctypes.sizeof(kernels.Share) == 16 + 8 + 8 + 4 + 4 + 4 + 4 + 4 + 4  # padded to 8


@needs_compiler
def test_a_damaged_library_is_built_again(fresh):
    built = kernels._built()
    assert built is not None
    whole = built.read_bytes()
    built.write_bytes(whole[:100])
    assert kernels.library() is not None
    assert built.stat().st_size == len(whole)


@needs_compiler
def test_without_half_precision_in_the_compiler_the_other_types_are_built(
    fresh, monkeypatch, tmp_path
):
    source = tmp_path / "kernels.c"
    text = kernels.SOURCE.read_text()
    source.write_text("#undef __FLT16_MAX__\n#define _Float16 no_such_type\n" + text)
    monkeypatch.setattr(kernels, "SOURCE", source)
    assert kernels.built_types() == {"bfloat16", "float32"}


def test_without_a_compiler_no_type_is_built(fresh, monkeypatch):
    monkeypatch.setenv("CC", "false")
    assert kernels.built_types() == frozenset()
