"""The compiled inner loops of merging (``kernels.c``): built at first use, called through ctypes.

Needs neither PyTorch nor NumPy. Where there is no C compiler ``library()`` is None, and whoever
asks computes with the functions of ``methods``, which give the same bytes, more slowly.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from ctypes import POINTER, c_double, c_float, c_int, c_int32, c_int64, c_uint32, c_uint64
from pathlib import Path

SOURCE = Path(__file__).with_name("kernels.c")
# Nothing may be fused or reordered: the result must not depend on the compiler or the processor.
_FLAGS = (
    *("-std=gnu11", "-O3", "-fPIC", "-shared", "-fno-strict-aliasing"),
    *("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"),
)

# As in kernels.c.
TYPES = {"bfloat16": 0, "float16": 1, "float32": 2}
KEEP_ALL, KEEP_LARGEST, KEEP_RANDOM = range(3)
MAX_INPUTS = 30
CHUNK = 4096
COMPARED = 5  # sums per chunk of merge_compare: a*b, a*a, b*b, (a-b)*(a-b), equal signs
RESULT_OVERFLOW = 1 << 62


class Place(ctypes.Structure):
    """Where a tensor lies: an open file, the type of its elements, the offset of the first."""

    _fields_ = (("file", c_int32), ("type", c_int32), ("offset_bytes", c_int64))


class Share(ctypes.Structure):
    """What a model brings to a sum of task vectors."""

    _fields_ = (
        ("place", Place),
        ("key", c_uint64),
        ("num_equal", c_int64),
        ("keep_below", c_uint32),
        ("sparsity", c_int32),
        ("threshold", c_float),
        ("factor", c_float),
        ("weight", c_float),
    )


_PLACES, _SHARES = POINTER(Place), POINTER(Share)
_RANGE = (c_int64, c_int64)
_SIGNATURES = {
    "merge_linear": (c_int64, (_PLACES, POINTER(c_float), c_int, c_float, *_RANGE)),
    "merge_compare": (c_int64, (_PLACES, *_RANGE, c_int, POINTER(c_double))),
    "merge_count": (
        c_int64,
        (
            *(_PLACES, *_RANGE, c_int64, c_int, c_uint32, c_uint32),
            *(POINTER(c_int64), POINTER(c_uint32)),
        ),
    ),
    "merge_rank": (c_int64, (POINTER(c_uint32), c_int, c_int64, c_int64, POINTER(c_int64))),
    "merge_magnitudes": (c_int64, (Place, _SHARES, *_RANGE, POINTER(c_double))),
    "merge_task_vectors": (
        c_int64,
        (_PLACES, _SHARES, c_int, c_int, c_int, c_float, c_float, *_RANGE),
    ),
    "merge_has_float16": (c_int, ()),
    "merge_add": (c_double, (POINTER(c_double), c_int64, c_int64)),
}


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the compiled functions, building them if need be; None if that is not possible."""
    try:
        loaded = _loaded(_built())
    except OSError:  # no place to write to
        return None
    if loaded is not None:
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(loaded, name)
            function.restype, function.argtypes = result, arguments
    return loaded


def built_types() -> frozenset[str]:
    """Return the types of elements that the compiled functions take; none if there are none."""
    loaded = library()
    if loaded is None:
        return frozenset()
    return frozenset(TYPES) - (set() if loaded.merge_has_float16() else {"float16"})


def _loaded(path: Path | None) -> ctypes.CDLL | None:
    """Load the library; one that is damaged or of another system is built once more."""
    if path is None:
        return None
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        path.unlink()
        path = _built()
        return ctypes.CDLL(str(path)) if path else None


def _built() -> Path | None:
    """Return the library for this source and kind of machine, compiled unless it is there."""
    source = SOURCE.read_bytes()
    digest = hashlib.sha256(b"\0".join([source, *map(str.encode, _FLAGS)])).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "biomistral"
    path = folder / f"kernels-{platform.machine()}-{digest}.so"
    if path.is_file():
        return path
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as draft:  # two processes may build at once
        made = Path(draft) / path.name
        command = [*compiler.split(), *_FLAGS, "-o", str(made), str(SOURCE)]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            return None
        made.replace(path)
    return path
