"""C files: built once, found again, built anew when damaged, and done without where they cannot be."""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path

import pytest

from biomistral.models import fused, head
from biomistral.models.compiling import compiled

needs_compiler = pytest.mark.skipif(
    shutil.which("cc") is None and shutil.which("gcc") is None, reason="no C compiler found"
)
SIGNATURES = {"twice": (ctypes.c_double, (ctypes.c_double,))}


@pytest.fixture
def source(monkeypatch, tmp_path):
    """A small C file, and a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CC", raising=False)
    path = tmp_path / "sums.c"
    path.write_text("double twice(double x) { return 2 * x; }\n")
    return path


def built(tmp_path):
    return list((tmp_path / "cache" / "biomistral").iterdir())


@needs_compiler
def test_another_header_builds_another_library(source, tmp_path):
    source.write_text('#include "parts/factor.h"\ndouble twice(double x) { return FACTOR * x; }\n')
    (tmp_path / "parts").mkdir()
    for factor in (2, 3):
        (tmp_path / "parts" / "factor.h").write_text(f"#define FACTOR {factor}\n")
        assert compiled(source, SIGNATURES).twice(1.5) == factor * 1.5
    assert len(built(tmp_path)) == 2


@needs_compiler
def test_a_function_is_built_once_and_called(source, tmp_path, monkeypatch):
    assert compiled(source, SIGNATURES).twice(1.5) == 3.0
    (library,) = built(tmp_path)
    monkeypatch.setenv("CC", "false")
    assert compiled(source, SIGNATURES).twice(2.0) == 4.0  # it was found, not built
    assert built(tmp_path) == [library]


@needs_compiler
def test_another_source_is_another_library(source, tmp_path):
    compiled(source, SIGNATURES)
    source.write_text("double twice(double x) { return x + x; }\n")
    assert compiled(source, SIGNATURES).twice(1.0) == 2.0
    assert len(built(tmp_path)) == 2


@needs_compiler
def test_a_damaged_library_is_built_again(source, tmp_path):
    compiled(source, {})
    (library,) = built(tmp_path)
    library.unlink()
    library.write_bytes(b"\x7fELF, and nothing behind it")
    assert compiled(source, SIGNATURES).twice(1.0) == 2.0


@pytest.mark.parametrize("compiler", ["false", "/no/such/compiler"])
def test_without_a_compiler_there_is_no_library_and_nothing_is_left(
    source, tmp_path, monkeypatch, compiler
):
    monkeypatch.setenv("CC", compiler)
    assert compiled(source, SIGNATURES) is None
    assert built(tmp_path) == []


@needs_compiler
def test_a_source_that_does_not_compile_is_done_without(source, tmp_path):
    source.write_text("this is no C")
    assert compiled(source, SIGNATURES) is None
    assert built(tmp_path) == []


def test_without_a_place_to_write_to_there_is_no_library(source, tmp_path):
    (tmp_path / "cache").write_text("a file")
    assert compiled(source, SIGNATURES) is None


def test_without_a_home_there_is_no_library(source, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.getuid", lambda: 54321)  # of whom no system knows a thing
    assert compiled(source, SIGNATURES) is None


@needs_compiler
def test_a_library_that_another_process_takes_away_is_built_again(source, tmp_path, monkeypatch):
    load = ctypes.CDLL

    def take_away(path):
        monkeypatch.setattr(ctypes, "CDLL", load)
        Path(path).unlink()
        return load(path)

    monkeypatch.setattr(ctypes, "CDLL", take_away)
    assert compiled(source, SIGNATURES).twice(1.0) == 2.0
    assert len(built(tmp_path)) == 1


@needs_compiler
@pytest.mark.parametrize("source", [head._SOURCE, fused._SOURCE])
def test_compilers_before_gcc_12_build_ours_too(source, tmp_path, monkeypatch):
    """They do not know how to choose among levels of x86-64, and would build nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CC", f"{shutil.which('cc') or 'gcc'} -U__GNUC__ -D__GNUC__=11")
    assert compiled(source, {}) is not None
    (library,) = built(tmp_path)
    assert b"x86_64_v4" not in library.read_bytes()
