"""Safetensors files: read where tensors lie, or lay a file out for tensors to be put into.

Header only; values are read and written by whoever knows the places. Knows nothing about folders
and needs no PyTorch: types are named as PyTorch and ``config.json`` name them.

Format: https://huggingface.co/docs/safetensors (8 bytes length, JSON header, raw values).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biomistral.errors import ModelError

# Name in the file -> name in PyTorch.
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
_STORED_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
STORABLE = frozenset(_STORED_NAMES)
_BYTES_OF = {"bool": 1, "float8_e4m3fn": 1, "float8_e5m2": 1}

# The safetensors library refuses longer headers too.
_LONGEST_HEADER_BYTES = 100_000_000


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What is known of a tensor without its values."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # bfloat16, float32, ...: the attribute of torch

    @property
    def num_elements(self) -> int:
        """Product of the shape; 1 for a scalar."""
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Size on disk."""
        return self.num_elements * self.element_bytes

    @property
    def element_bytes(self) -> int:
        """Size of one element."""
        digits = self.dtype.lstrip("abcdefghijklmnopqrstuvwxyz")
        return _BYTES_OF[self.dtype] if self.dtype in _BYTES_OF else int(digits) // 8


@dataclass(frozen=True, slots=True)
class StoredTensor(TensorSpec):
    """A tensor in a safetensors file; ``offset_bytes`` counts from the start of the file."""

    file: Path
    offset_bytes: int


def read_header(file: Path) -> list[StoredTensor]:
    """Return the tensors of one safetensors file, in the order of their values.

    Raises ``ModelError`` if the file is cut off, padded or its header does not describe it.
    """
    size_bytes = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        start = 8 + length
        if size_bytes < 8 or length > _LONGEST_HEADER_BYTES or start > size_bytes:
            raise _damaged(file, f"it has {size_bytes} bytes, less than its header needs")
        text = stream.read(length)
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        spans = sorted((*_whole(entry["data_offsets"]), name) for name, entry in header.items())
        tensors = [_stored(file, name, header[name], start + begin) for begin, _, name in spans]
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise _damaged(file, f"its header cannot be read ({error!r})") from None
    expected = 0
    for tensor, (begin, end, _) in zip(tensors, spans, strict=True):
        if begin != expected or end - begin != tensor.num_bytes:
            raise _damaged(
                file,
                f"its header gives {tensor.name} the bytes {begin} to {end}, while its shape "
                f"{list(tensor.shape)} and type need {expected} to {expected + tensor.num_bytes}",
            )
        expected = end
    if size_bytes != start + expected:
        raise _damaged(file, f"it has {size_bytes} bytes where its header needs {start + expected}")
    return tensors


def _stored(file: Path, name: str, entry: dict[str, Any], offset_bytes: int) -> StoredTensor:
    shape = tuple(_whole(entry["shape"]))
    if any(length < 0 for length in shape):
        raise ValueError(f"{name} has the shape {list(shape)}")
    dtype = entry["dtype"]
    if isinstance(dtype, str) and dtype not in _DTYPES:
        raise ModelError(
            f"{file}: {name} is of the type {dtype}, which is not known here; known are "
            f"{', '.join(_DTYPES)}: name the model as it was before quantization"
        )
    return StoredTensor(name, shape, _DTYPES[dtype], file, offset_bytes)


def _whole(numbers: Any) -> list[int]:
    if not isinstance(numbers, list) or any(type(number) is not int for number in numbers):
        raise ValueError(f"{numbers!r} are no whole numbers")
    return numbers


def _damaged(file: Path, what: str) -> ModelError:
    return ModelError(
        f"{file}: is damaged or was not copied whole: {what}; fetch or make the file again"
    )


def lay_out(file: Path, tensors: Sequence[TensorSpec]) -> list[StoredTensor]:
    """Write the header of a file, stretch it to its full size and return the places within."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    # Wide types first: every tensor then starts at a multiple of its own width.
    ordered = sorted(tensors, key=lambda tensor: -tensor.element_bytes)
    for tensor in ordered:
        header[tensor.name] = {
            "dtype": _STORED_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.num_bytes],
        }
        offset += tensor.num_bytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.truncate(8 + len(text) + offset)
    return read_header(file)
