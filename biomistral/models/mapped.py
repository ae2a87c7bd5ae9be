"""Values of tensors in files, as tensors whose pages are read when they are used.

Knows nothing about checkpoints: where a tensor lies is told by a ``StoredTensor``.
"""

from __future__ import annotations

import mmap
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from biomistral.models.safetensors_files import StoredTensor

# Linux: do not set memory aside for copies of pages that nobody writes to (MAP_NORESERVE); where
# memory is not overcommitted, a model larger than it could not be mapped.
_PRIVATE: dict[str, Any] = (
    {"flags": mmap.MAP_PRIVATE | 0x4000, "prot": mmap.PROT_READ | mmap.PROT_WRITE}
    if sys.platform == "linux"
    else {"access": mmap.ACCESS_COPY}
)


class MappedFiles:
    """Files that stay mapped into memory; may be used by several threads."""

    def __init__(self) -> None:
        self._maps: dict[Path, mmap.mmap] = {}

    def read(self, stored: StoredTensor) -> Tensor:
        """Return the tensor; writing to it changes no file."""
        dtype = getattr(torch, stored.dtype)
        if stored.num_elements == 0:
            return torch.empty(stored.shape, dtype=dtype)
        if stored.file not in self._maps:
            with stored.file.open("rb") as stream:
                # A private copy on write: PyTorch has no read-only tensors.
                self._maps[stored.file] = mmap.mmap(stream.fileno(), 0, **_PRIVATE)
        flat = torch.frombuffer(
            self._maps[stored.file],
            dtype=dtype,
            count=stored.num_elements,
            offset=stored.offset_bytes,
        )
        return flat.view(stored.shape)
