"""Values of tensors in files, as tensors whose pages are read when they are used.

Knows nothing about checkpoints: where a tensor lies is told by a ``StoredTensor``.
"""

from __future__ import annotations

import mmap
from pathlib import Path

import torch
from torch import Tensor

from biomistral.models.safetensors_files import StoredTensor


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
                self._maps[stored.file] = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
        flat = torch.frombuffer(
            self._maps[stored.file],
            dtype=dtype,
            count=stored.num_elements,
            offset=stored.offset_bytes,
        )
        return flat.view(stored.shape)
