"""AWQ on a whole checkpoint, one decoder layer at a time, in the memory of about one layer.

Weights are read from the mapped files when their layer's turn comes. The activations of the
unquantized model, which each layer is calibrated on, go from file to file on the disk. So a run
that was killed goes on with the layer it was at:

    hidden-NNN.bin         activations that layer NNN reads, row after row; removed when it is done
    layer-NNN.safetensors  tensors of the checkpoint to be made
    layer-NNN.json         their errors

Layers run in the type the weights are stored in where the processor multiplies it fast, else in
float32. Tensors that stay plain become float16, the type that every reader of the format expects.

Shapes: T tokens of a row, H width of the model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from biomistral.artifacts import write_json
from biomistral.errors import ModelError
from biomistral.models.awq import Layout
from biomistral.models.checkpoints import Checkpoint
from biomistral.models.loading import quiet_transformers
from biomistral.models.mapped import MappedFiles
from biomistral.models.safetensors_files import TensorSpec, read_header
from biomistral.models.writing import CheckpointWriter
from biomistral.progress import Progress, ignore
from biomistral.quantization.decoder import (
    Errors,
    check_supported,
    quantize_layer,
    statistics_of,
)

_BLOCK_ELEMENTS = 2**24  # of a tensor that is written in blocks: 32 MB of float16
_LAYERS = "model.layers."
_EMBEDDING = "model.embed_tokens.weight"
_HEAD = "lm_head.weight"

Row = tuple[Tensor, Sequence[int]]  # ids int64 (T,) without padding, lengths of its documents


@dataclass(frozen=True)
class Layered:
    """A checkpoint that is run one layer at a time."""

    original: Checkpoint
    config: Any
    core: Any  # the model without head and weights; runs the one layer it is given
    empty_layers: Sequence[nn.Module]  # without weights
    plain: dict[str, tuple[int, ...]]  # name -> shape of the tensors outside of the layers
    device: torch.device
    dtype: torch.dtype

    def layer(self, index: int) -> nn.Module:
        """Return a decoder layer with its weights; raises ``ModelError`` if they are broken."""
        layer = self.empty_layers[index]
        weights = {}
        for name, empty in layer.state_dict().items():
            stored = _found(self.original, f"{_LAYERS}{index}.{name}", tuple(empty.shape))
            weights[name] = stored.to(self.device, self.dtype)
            if not weights[name].isfinite().all():
                raise ModelError(
                    f"{self.original.folder}: {_LAYERS}{index}.{name} holds numbers that are not "
                    "finite; look for what broke the model, or fetch it again"
                )
        layer.load_state_dict(weights, assign=True)
        return layer.requires_grad_(requires_grad=False)

    def run(self, layer: nn.Module, hidden: Tensor, lengths: Sequence[int]) -> Tensor:
        """Move one row through a layer.  # (T, H) -> (T, H)."""
        self.core.layers = nn.ModuleList([layer])
        # Restarting positions, no mask and no cache: only so are documents kept apart.
        positions = torch.cat([torch.arange(length) for length in lengths])
        found = self.core(
            inputs_embeds=hidden[None].to(self.device),
            position_ids=positions[None].to(self.device),
            use_cache=False,
        )
        return torch.squeeze(found.last_hidden_state, 0)

    def embed(self, ids: Tensor) -> Tensor:
        """Look up the embeddings of a row; only their pages are read.  # (T,) -> (T, H)."""
        table = _found(self.original, _EMBEDDING, self.plain[_EMBEDDING])
        return table[ids].to(self.dtype)


def open_layered(original: Checkpoint, device: torch.device, group_size: int) -> Layered:
    """Open a checkpoint for AWQ. Raises ``ModelError`` if its architecture or widths do not fit."""
    config = AutoConfig.from_pretrained(original.folder)
    stored = original.config.get("dtype") or original.config.get("torch_dtype")
    dtype = torch.bfloat16 if stored == "bfloat16" and _is_fast(device) else torch.float32
    load: Any = AutoModelForCausalLM
    with quiet_transformers(), torch.device("meta"):
        model = load.from_config(config, dtype=dtype).eval()
    layers = list(getattr(getattr(model, "model", None), "layers", []))
    check_supported(config, layers, group_size)
    core = model.model
    plain = {
        name: tuple(tensor.shape)
        for name, tensor in model.state_dict().items()
        if not name.startswith(_LAYERS) and not (name == _HEAD and config.tie_word_embeddings)
    }
    core.norm = nn.Identity()
    with torch.device(device):  # its frequencies are computed, not stored
        core.rotary_emb = type(core.rotary_emb)(config=config)
    return Layered(original, config, core, layers, plain, device, dtype)


def _is_fast(device: torch.device) -> bool:
    """Whether bfloat16 is multiplied faster than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported())


def _found(original: Checkpoint, name: str, shape: tuple[int, ...]) -> Tensor:
    if name not in original.tensors:
        raise ModelError(f"{original.folder}: lacks the weight {name}; fetch the checkpoint again")
    if (found := original.tensors[name].shape) != shape:
        raise ModelError(
            f"{original.folder}: {name} has the shape {list(found)}, its config says {list(shape)}; "
            "fetch the checkpoint again"
        )
    return original.tensor(name)


# --- layer by layer -------------------------------------------------------------------------------


class _Hidden:
    """Activations of all rows, one after the other in a file."""

    def __init__(self, file: Path, layered: Layered, rows: Sequence[Row]) -> None:
        self.file = file
        self._dtype, self._width = layered.dtype, layered.config.hidden_size
        lengths = [len(ids) for ids, _ in rows]
        self._ends = np.cumsum([0, *lengths]) * self._width

    def read(self, index: int) -> Tensor:
        """Return those of one row.  # (T, H)."""
        start, end = (int(place) * self._dtype.itemsize for place in self._ends[index : index + 2])
        raw = np.fromfile(self.file, np.uint8, count=end - start, offset=start)
        return torch.from_numpy(raw).view(self._dtype).view(-1, self._width)

    def write(self, rows: Iterator[Tensor]) -> None:
        """Write all rows; the file has its name only when it is whole."""
        partial = self.file.with_suffix(".partial")
        with partial.open("wb") as stream:
            for row in rows:
                stream.write(row.cpu().contiguous().view(torch.uint8).numpy().data)
        partial.rename(self.file)


@torch.no_grad()
def quantize_layers(
    layered: Layered,
    rows: Sequence[Row],
    group_size: int,
    work: Path,
    *,
    layout: Layout = "gemm",
    progress: Progress = ignore,
) -> Errors:
    """Leave the tensors of every layer of an ``awq`` checkpoint in ``work``; return their errors.

    Goes on where an earlier call with the same arguments stopped. Raises ``ModelError`` if the
    model is broken (its numbers are not finite, or too large for float16).
    """
    files = [work / f"hidden-{index:03}.bin" for index in range(len(layered.empty_layers) + 1)]
    hidden = [_Hidden(file, layered, rows) for file in files]
    started = [index for index, file in enumerate(files) if file.is_file()]
    if not started:
        hidden[0].write(layered.embed(ids) for ids, _ in rows)
    total = len(layered.empty_layers)
    for index in range(min(started, default=0), total):
        progress(index, total, "layers quantized")
        layer = layered.layer(index)
        with statistics_of(layer, group_size) as statistics:
            moved = (
                layered.run(layer, hidden[index].read(place), lengths)
                for place, (_, lengths) in enumerate(rows)
            )
            hidden[index + 1].write(_finite(moved, f"{layered.original.folder}: layer {index}"))
        errors = Errors()
        tensors = quantize_layer(layer, statistics, group_size, errors, layout)
        prefix = f"{_LAYERS}{index}."
        stored = {
            prefix + name: _storable(prefix + name, value).contiguous()
            for name, value in tensors.items()
        }
        save_file(stored, work / f"layer-{index:03}.safetensors")
        write_json(work / f"layer-{index:03}.json", asdict(errors))
        files[index].unlink()  # only now is the layer done
        layer.to_empty(device="meta")
    progress(total, total, "layers quantized")
    whole = Errors()
    for index in range(total):
        whole.extend(json.loads((work / f"layer-{index:03}.json").read_text(encoding="utf-8")))
    return whole


def write_quantized(layered: Layered, work: Path, folder: Path) -> None:
    """Write the weights of the ``awq`` checkpoint: what ``quantize_layers`` left, and the rest."""
    of_layers = [
        stored for file in sorted(work.glob("layer-*.safetensors")) for stored in read_header(file)
    ]
    rest = [TensorSpec(name, shape, "float16") for name, shape in layered.plain.items()]
    writer = CheckpointWriter(folder, [*of_layers, *rest])
    files = MappedFiles()
    for stored in of_layers:
        writer.write(stored.name, files.read(stored))
    for spec in rest:
        flat: Any = _found(layered.original, spec.name, spec.shape).flatten()
        writer.write_blocks(
            spec.name, (_storable(spec.name, block) for block in flat.split(_BLOCK_ELEMENTS))
        )
    writer.finish()


def _finite(rows: Iterator[Tensor], where: str) -> Iterator[Tensor]:
    for row in rows:
        if not row.isfinite().all():
            raise ModelError(
                f"{where} makes numbers that are not finite of the calibration text; look for what "
                "broke the model, or use method: bitsandbytes"
            )
        yield row


def _storable(name: str, tensor: Tensor) -> Tensor:
    """On the CPU, and float16 if it is of another floating type."""
    stored = tensor.cpu().half() if tensor.is_floating_point() else tensor.cpu()
    if stored.is_floating_point() and not stored.isfinite().all():
        raise ModelError(
            f"{name}: has numbers that are not finite, or too large for float16, the type of an "
            "awq checkpoint; use method: bitsandbytes, or look for what broke the model"
        )
    return stored
