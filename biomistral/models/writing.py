"""Checkpoint folders written tensor by tensor: weights, index, config, and what travels with them.

The files are laid out at once (headers, index, full size), and each tensor then goes to its place,
in any order and from any thread, so that no more than the block at hand is in memory.

Format: that of ``save_pretrained`` in Transformers. Knows nothing about what the tensors mean.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biomistral.artifacts import flush, write_json
from biomistral.models.checkpoints import (
    COMPANIONS,
    CONFIG,
    INDEX,
    SINGLE_FILE,
    TOKENIZER_CONFIG,
    read_json,
)
from biomistral.models.safetensors_files import StoredTensor, TensorSpec, lay_out, read_header

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT_SHARD_BYTES = 5_000_000_000
_FINISHED = ".finished"  # at the end of the name of an empty file beside a whole shard


class CheckpointWriter:
    """Write tensors of known names, shapes and types, in any order and from any thread.

    With ``resume``, shards that an earlier writer of the same tensors finished in this folder
    (``finish_shard``) are kept; only ``unfinished`` ones are to be written.
    """

    def __init__(
        self,
        folder: Path,
        tensors: Sequence[TensorSpec],
        *,
        max_shard_bytes: int = DEFAULT_SHARD_BYTES,
        resume: bool = False,
    ) -> None:
        names = {tensor.name for tensor in tensors}
        assert len(names) == len(tensors), "two tensors have one name"
        shards = _shards(tensors, max_shard_bytes)
        # Files and what lies in them.
        self.shards: dict[Path, list[StoredTensor]] = {}
        self.unfinished: list[Path] = []
        for index, shard in enumerate(shards):
            file = folder / _shard_name(index, len(shards))
            if resume and _marker(file).is_file() and file.is_file():
                self.shards[file] = read_header(file)
            else:
                self.shards[file] = lay_out(file, shard)
                self.unfinished.append(file)
        self.places = {place.name: place for places in self.shards.values() for place in places}
        self._missing = {place.name for file in self.unfinished for place in self.shards[file]}
        self.files = list(self.shards)
        if len(shards) > 1:
            total_bytes = sum(tensor.num_bytes for tensor in tensors)
            weight_map = {name: place.file.name for name, place in self.places.items()}
            write_json(
                folder / INDEX, {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}
            )
            self.files.append(folder / INDEX)

    def write(self, name: str, values: Tensor) -> None:
        """Write a whole tensor, converted to its declared type."""
        assert tuple(values.shape) == self.places[name].shape, name
        self.write_blocks(name, [values])

    def write_blocks(self, name: str, blocks: Iterable[Tensor]) -> None:
        """Write a tensor given as blocks of its elements in row-major order."""
        import torch

        place = self.places[name]
        dtype = getattr(torch, place.dtype)
        written_bytes = 0
        with place.file.open("r+b") as stream:
            stream.seek(place.offset_bytes)
            for block in blocks:
                # Through bytes, for NumPy has no bfloat16.
                flat = block.detach().to("cpu", dtype).contiguous().view(-1)
                written_bytes += stream.write(flat.view(torch.uint8).numpy().data)
        assert written_bytes == place.num_bytes, f"{name}: {written_bytes} bytes written"
        self._missing.discard(name)

    def finish_shard(self, file: Path) -> None:
        """Take a shard whose tensors were written, by this writer or around it, for finished."""
        flush(file)
        _marker(file).touch()
        self._missing -= {place.name for place in self.shards[file]}

    def finish(self) -> None:
        """Check that every tensor was written."""
        assert not self._missing, f"never written: {sorted(self._missing)[:3]}"


def has_finished(folder: Path) -> bool:
    """Whether a writer that resumes would find finished shards."""
    return any(folder.glob(f"*{_FINISHED}"))


def write_config(folder: Path, config: dict[str, Any], dtype: str | None = None) -> None:
    """Write ``config.json``, saying that the weights are of type ``dtype`` if one is given."""
    if dtype is not None:
        config = {key: value for key, value in config.items() if key != "torch_dtype"}
        config["dtype"] = dtype
    write_json(folder / CONFIG, config)


def copy_companions(source: Path, out: Path) -> list[str]:
    """Copy tokenizer, generation settings and chat template; return the names of those there."""
    found = [name for name in COMPANIONS if (source / name).is_file()]
    for name in found:
        shutil.copyfile(source / name, out / name)
    if TOKENIZER_CONFIG in found:
        _leave_out_code(out / TOKENIZER_CONFIG)
    return found


def _leave_out_code(path: Path) -> None:
    """Take out ``auto_map``: it names code beside the source, and code is not copied."""
    config = read_json(path)
    if "auto_map" in config:
        write_json(path, {key: value for key, value in config.items() if key != "auto_map"})


def _shards(tensors: Sequence[TensorSpec], max_bytes: int) -> list[list[TensorSpec]]:
    """Fill one file after another; a tensor larger than a file gets one of its own."""
    shards: list[list[TensorSpec]] = [[]]
    room = max_bytes
    for tensor in tensors:
        if tensor.num_bytes > room and shards[-1]:
            shards.append([])
            room = max_bytes
        shards[-1].append(tensor)
        room -= tensor.num_bytes
    return shards


def _marker(file: Path) -> Path:
    return file.with_name(file.name + _FINISHED)


def _shard_name(index: int, num_shards: int) -> str:
    if num_shards == 1:
        return SINGLE_FILE
    return f"model-{index + 1:05d}-of-{num_shards:05d}.safetensors"
