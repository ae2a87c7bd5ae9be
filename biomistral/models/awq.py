"""The ``awq`` checkpoint format, version ``gemm``: how its tensors are packed, and a reader.

A quantized linear layer of K inputs and N outputs has, in place of ``weight`` (N, K),

    qweight  int32    (K, N / 8)    levels 0 to 15, eight to an int32
    qzeros   int32    (K / g, N / 8)    zero points 0 to 15, packed alike
    scales   float16  (K / g, N)

and stands for ``weight[n, k] = (level[k, n] - zero[k // g, n]) * scale[k // g, n]``, with g the
group size. Nibble i of an int32, the lowest first, holds column ``ORDER[i]`` of its eight: the
order in which the CUDA kernels of AutoAWQ, the first to write this format, unpack pairs of halves.

``load_awq_model`` needs no library for quantized models: it computes the plain weights again. That
is exact and runs everywhere, but saves no memory. Knows nothing about how levels are chosen.

Shapes: K inputs, N outputs, R rows of any kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor
from transformers import AutoConfig, GenerationConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from biomistral.errors import ModelError
from biomistral.models.checkpoints import Checkpoint

BITS = 4
LEVELS = 2**BITS
PER_INT32 = 32 // BITS
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
PARTS = ("qweight", "qzeros", "scales")


@dataclass(frozen=True)
class PackedLinear:
    """The three tensors that stand for the weight of one linear layer."""

    qweight: Tensor  # int32 (K, N / 8)
    qzeros: Tensor  # int32 (K / g, N / 8)
    scales: Tensor  # float16 (K / g, N)

    def weight(self) -> Tensor:
        """Compute the plain weight again, in float32, as a linear layer has it.  # (N, K)."""
        group_size = self.qweight.shape[0] // self.scales.shape[0]
        levels = unpack(self.qweight).float()
        zeros = unpack(self.qzeros).float().repeat_interleave(group_size, dim=0)
        scales = self.scales.float().repeat_interleave(group_size, dim=0)
        return ((levels - zeros) * scales).T.contiguous()


def pack(levels: Tensor) -> Tensor:
    """Pack integers 0 to 15, (R, N) with N a multiple of 8, to int32 (R, N / 8)."""
    rows, columns = levels.shape
    assert columns % PER_INT32 == 0, "columns do not fill the last int32"
    eights = levels.to(torch.int64).reshape(rows, -1, PER_INT32)[:, :, list(ORDER)]
    shifted = torch.bitwise_left_shift(eights, _shifts(levels.device))
    return shifted.sum(dim=-1).to(torch.int32)  # past 2^31 it wraps into the sign bit, as it must


def unpack(packed: Tensor) -> Tensor:
    """Undo ``pack``: int32 (R, N / 8) to uint8 (R, N) of 0 to 15."""
    shifted = torch.bitwise_right_shift(packed[:, :, None], _shifts(packed.device))
    nibbles = torch.bitwise_and(shifted, LEVELS - 1).to(torch.uint8)
    place_of_column = [ORDER.index(column) for column in range(PER_INT32)]
    return nibbles[:, :, place_of_column].flatten(1)


def awq_config(group_size: int) -> dict[str, Any]:
    """Return the ``quantization_config`` of a checkpoint in this format."""
    return {
        "quant_method": "awq",
        "bits": BITS,
        "group_size": group_size,
        "zero_point": True,
        "version": "gemm",
        "modules_to_not_convert": ["lm_head"],
    }


def load_awq_model(
    folder: Path, precision: Literal["bfloat16", "float16", "float32"] = "bfloat16"
) -> PreTrainedModel:
    """Load an ``awq`` checkpoint as a plain model in ``precision``, in evaluation mode, on the CPU.

    It takes as much memory as the model had before quantization. In bfloat16 each weight is
    rounded once more; float32 is what the checkpoint says.

    Raises ``ModelError`` if the folder is no whole checkpoint, is not in this format, or holds
    tensors that do not fit its config.
    """
    checkpoint = Checkpoint(folder)
    _check_format(folder, checkpoint.config.get("quantization_config"))
    config = AutoConfig.from_pretrained(folder)
    del config.quantization_config
    dtype: torch.dtype = getattr(torch, precision)
    weights = dict(_plain_weights(checkpoint, dtype))
    model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    model, report = model_class.from_pretrained(
        None,
        config=config,
        state_dict=weights,
        dtype=dtype,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # to name them below
    )
    _check_complete(folder, report)
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return cast("PreTrainedModel", model.eval())


def _check_complete(folder: Path, report: dict[str, Any]) -> None:
    mismatched = {name for name, *_ in report["mismatched_keys"]}
    if wrong := sorted(report["missing_keys"] | report["unexpected_keys"] | mismatched):
        raise ModelError(
            f"{folder}: {len(wrong)} tensors are missing, belong to no layer or have another shape "
            f"than its config says, the first is {wrong[0]}; make the checkpoint again"
        )


def _shifts(device: torch.device) -> Tensor:
    return torch.arange(0, 32, BITS, device=device, dtype=torch.int32)


def _check_format(folder: Path, quantization: dict[str, Any] | None) -> None:
    found = quantization or {}
    method, bits = found.get("quant_method"), found.get("bits")
    version = str(found.get("version", found.get("format", "gemm"))).lower()
    if (method, bits, version) != ("awq", BITS, "gemm"):
        raise ModelError(
            f"{folder}: is not in the format that can be read here (quant_method awq, bits {BITS}, "
            f"version gemm); its config.json says quant_method {method}, bits {bits}, "
            f"version {version}"
        )


def _plain_weights(checkpoint: Checkpoint, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Yield all tensors of the checkpoint in ``dtype``, the packed ones as plain weights."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name in checkpoint.tensors:
        tensor = checkpoint.tensor(name)
        linear, _, part = name.rpartition(".")
        if part not in PARTS:
            yield name, tensor.to(dtype)
            continue
        parts.setdefault(linear, {})[part] = tensor
        if len(parts[linear]) == len(PARTS):
            packed = PackedLinear(**parts.pop(linear))
            _check_shapes(f"{checkpoint.folder}: {linear}", packed)
            yield f"{linear}.weight", packed.weight().to(dtype)
    if parts:
        linear, found = next(iter(parts.items()))
        raise ModelError(
            f"{checkpoint.folder}: {linear} has {', '.join(found)} but needs {', '.join(PARTS)}; "
            "the checkpoint is damaged, make it again"
        )


def _check_shapes(where: str, packed: PackedLinear) -> None:
    inputs, words = packed.qweight.shape
    groups, outputs = packed.scales.shape
    fits = outputs == words * PER_INT32 and packed.qzeros.shape == (groups, words)
    if not fits or packed.qweight.dtype != torch.int32 or inputs % groups:
        raise ModelError(
            f"{where}: qweight {packed.qweight.dtype} {tuple(packed.qweight.shape)}, qzeros "
            f"{tuple(packed.qzeros.shape)} and scales {tuple(packed.scales.shape)} do not fit "
            "together; the checkpoint is damaged or was saved after use, make it again"
        )
