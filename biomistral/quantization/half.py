"""Half precision: a checkpoint with all weights in float16 or bfloat16, written tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from biomistral.errors import ModelError
from biomistral.models.checkpoints import Checkpoint
from biomistral.models.safetensors_files import TensorSpec
from biomistral.models.writing import CheckpointWriter
from biomistral.progress import Progress, ignore

_BLOCK_ELEMENTS = 2**24  # 64 MB of float32


def write_half(
    original: Checkpoint, folder: Path, dtype: str, progress: Progress = ignore
) -> dict[str, list[float]]:
    """Write the weights as ``dtype``; return the relative errors of matrices by kind of layer.

    Raises ``ModelError`` for a number that is not finite, or too large for the type.
    """
    specs = [TensorSpec(t.name, t.shape, dtype) for t in original.tensors.values()]
    writer = CheckpointWriter(folder, specs)
    errors: dict[str, list[float]] = {}
    for index, spec in enumerate(specs):
        progress(index, len(specs), "tensors written")
        squares = [0.0, 0.0]  # of the difference, and of the weight
        exact = original.tensor(spec.name)
        writer.write_blocks(spec.name, _rounded(spec, exact, squares))
        if len(spec.shape) > 1:
            error = (squares[0] / squares[1]) ** 0.5 if squares[0] else 0.0
            errors.setdefault(spec.name.split(".")[-2], []).append(error)
    writer.finish()
    progress(len(specs), len(specs), "tensors written")
    return errors


def _rounded(spec: TensorSpec, exact: Tensor, squares: list[float]) -> Iterator[Tensor]:
    """Yield blocks of a tensor in its new type, adding to the squares of error and weight."""
    for start in range(0, exact.numel(), _BLOCK_ELEMENTS):
        block = exact.view(-1)[start : start + _BLOCK_ELEMENTS]
        stored = block.to(getattr(torch, spec.dtype))
        if not stored.isfinite().all():
            raise ModelError(
                f"{spec.name}: has numbers that are not finite, or too large for {spec.dtype}; use "
                "dtype: bfloat16, or look for what broke the model"
            )
        wide = block.float()
        squares[0] += float((stored.float() - wide).square().sum())
        squares[1] += float(wide.square().sum())
        yield stored
