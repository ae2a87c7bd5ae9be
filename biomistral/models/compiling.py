"""C files of this package, compiled at first use and loaded through ctypes.

The library is kept in the user's cache under a digest of its source and headers, so another version of
the package builds another one. Where there is no compiler the answer is None, and whoever asks does the
work in another way. Knows nothing about what the functions do.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Result and arguments of a function, as ctypes names them.
Signature = tuple[Any, Sequence[Any]]

# Of headers of ours, that include none themselves.
_INCLUDE = re.compile(rb'^#include "([^"]+)"', re.MULTILINE)
# Nothing may be fused or reordered: the result must not depend on the compiler or the processor.
_FLAGS = (
    *("-std=gnu11", "-O3", "-fPIC", "-shared", "-fno-strict-aliasing"),
    *("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"),
)


def compiled(source: Path, signatures: Mapping[str, Signature]) -> ctypes.CDLL | None:
    """Return the functions of a C file, building them if need be; None if that is not possible."""
    try:
        loaded = _loaded(source)
    except (OSError, RuntimeError):  # no place to write to, or no home at all
        return None
    if loaded is not None:
        for name, (result, arguments) in signatures.items():
            function = getattr(loaded, name)
            function.restype, function.argtypes = result, arguments
    return loaded


def _loaded(source: Path) -> ctypes.CDLL | None:
    """Load the library; one that is damaged or of another system is built once more."""
    path = _built(source)
    if path is None:
        return None
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        path.unlink(missing_ok=True)  # another process may have done so
        path = _built(source)
        return ctypes.CDLL(str(path)) if path else None


def _built(source: Path) -> Path | None:
    """Return the library for this source and kind of machine, compiled unless it is there."""
    text = source.read_bytes()
    headers = [(source.parent / name.decode()).read_bytes() for name in _INCLUDE.findall(text)]
    parts = [text, *headers, *map(str.encode, _FLAGS)]
    digest = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "biomistral"
    path = folder / f"{source.stem}-{platform.machine()}-{digest}.so"
    if path.is_file():
        return path
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as draft:  # two processes may build at once
        made = Path(draft) / path.name
        command = [*compiler.split(), *_FLAGS, "-o", str(made), str(source), "-lm"]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            return None
        made.replace(path)
    return path
