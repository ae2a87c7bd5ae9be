"""The ``awq`` checkpoint format, versions ``gemm`` and ``gemv``: how it is packed, and a reader.

A quantized linear layer of K inputs and N outputs stands for
``weight[n, k] = (level[n, k] - zero[n, k // g]) * scale[n, k // g]``, with g the group size, levels
and zero points of 0 to 15. It has, in place of ``weight`` (N, K),

              gemm                 gemv
    qweight   int32 (K, N / 8)     int32 (N, K / 8)    levels, eight to an int32
    qzeros    int32 (K / g, N / 8) int32 (N, Z)        zero points, likewise
    scales    float16 (K / g, N)   float16 (N, 8 Z)

In ``gemm``, nibble i of an int32, the lowest first, holds entry ``ORDER[i]`` of its eight: the order
in which the CUDA kernels of AutoAWQ, the first to write this format, unpack pairs of halves. In
``gemv`` they are in plain order. Z is ``zeros_width``: its kernels read whole words of groups, and
what is past the last group is 0. Most readers know ``gemm`` only.

``load_awq_model`` needs no library for quantized models: it computes the plain weights again. That
is exact and runs everywhere, but saves no memory; ``four_bit`` keeps them as they are. Knows nothing about how levels are chosen.

Shapes: K inputs, N outputs, G groups (K / g), R rows of any kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor
from transformers import AutoConfig, GenerationConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from biomistral.errors import ModelError
from biomistral.models.checkpoints import Checkpoint

Layout = Literal["gemm", "gemv"]

BITS = 4
LEVELS = 2**BITS
PER_INT32 = 32 // BITS
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
PLAIN_ORDER = tuple(range(PER_INT32))
PARTS = ("qweight", "qzeros", "scales")


@dataclass(frozen=True)
class PackedLinear:
    """The three tensors that stand for the weight of one linear layer; group size g."""

    qweight: Tensor
    qzeros: Tensor
    scales: Tensor
    layout: Layout = "gemm"
    group_size: int | None = None  # gemv cannot do without: its scales are padded

    @property
    def num_inputs(self) -> int:
        """K."""
        rows, words = self.qweight.shape
        return rows if self.layout == "gemm" else words * PER_INT32

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Levels uint8 (N, K), zero points uint8 (N, G), scales float16 (N, G)."""
        gemm = self.layout == "gemm"
        levels = unpack(self.qweight).T if gemm else unpack(self.qweight, PLAIN_ORDER)
        return levels, *self.zeros_and_scales()

    def zeros_and_scales(self) -> tuple[Tensor, Tensor]:
        """Zero points uint8 (N, G), scales float16 (N, G)."""
        if self.layout == "gemm":
            return unpack(self.qzeros).T, self.scales.T
        assert self.group_size, "gemv needs its group size"
        num_groups = self.num_inputs // self.group_size
        zeros = unpack(self.qzeros, PLAIN_ORDER)[:, :num_groups]
        return zeros, self.scales[:, :num_groups]

    def weight(self) -> Tensor:
        """Compute the plain weight again, in float32, as a linear layer has it.  # (N, K)."""
        levels, zeros, scales = self.parts()
        outputs, num_groups = zeros.shape
        grouped = levels.float().reshape(outputs, num_groups, -1) - zeros.float()[..., None]
        return (grouped * scales.float()[..., None]).flatten(1).contiguous()


def pack_linear(
    levels: Tensor, zeros: Tensor, scales: Tensor, layout: Layout = "gemm"
) -> dict[str, Tensor]:
    """Return the parts of a layer: levels (N, K) and zero points (N, G) of 0 to 15, scales (N, G)."""
    if layout == "gemm":
        qweight, qzeros, stored = pack(levels.T), pack(zeros.T), scales.T
    else:
        padding = PER_INT32 * zeros_width(levels.shape[1], zeros.shape[1]) - zeros.shape[1]
        zeros, stored = (torch.nn.functional.pad(t, (0, padding)) for t in (zeros, scales))
        qweight, qzeros = pack(levels, PLAIN_ORDER), pack(zeros, PLAIN_ORDER)
    return {"qweight": qweight, "qzeros": qzeros, "scales": stored.half().contiguous()}


def zeros_width(num_inputs: int, num_groups: int) -> int:
    """Words of zero points in a row of ``gemv``: for small groups its kernels read several at once.

    Raises ``ModelError`` for group sizes that they do not know.
    """
    group_size = num_inputs // num_groups
    at_once = 1 if group_size >= 128 else {64: 2, 32: 4, 16: 8}.get(group_size)
    if at_once is None:
        raise ModelError(
            f"group_size {group_size}: the gemv layout knows 16, 32, 64, and 128 and above; use one "
            "of those, or layout: gemm"
        )
    words = -(-num_groups // PER_INT32)
    return -(-words // at_once) * at_once


def pack(levels: Tensor, order: Sequence[int] = ORDER) -> Tensor:
    """Pack integers 0 to 15, (R, N) with N a multiple of 8, to int32 (R, N / 8)."""
    assert levels.shape[1] % PER_INT32 == 0, "columns do not fill the last int32"
    rows, columns = levels.shape
    packed = torch.zeros(rows, columns // PER_INT32, dtype=torch.int32, device=levels.device)
    for place, column in enumerate(order):
        nibbles = levels[:, column::PER_INT32].to(torch.int32)
        packed |= nibbles << (BITS * place)  # past 2^31 it goes into the sign bit, as it must
    return packed


def unpack(packed: Tensor, order: Sequence[int] = ORDER) -> Tensor:
    """Undo ``pack``: int32 (R, N / 8) to uint8 (R, N) of 0 to 15."""
    rows, words = packed.shape
    levels = torch.empty(rows, words * PER_INT32, dtype=torch.uint8, device=packed.device)
    for place, column in enumerate(order):
        levels[:, column::PER_INT32] = (packed >> (BITS * place)) & (LEVELS - 1)
    return levels


def awq_config(group_size: int, layout: Layout = "gemm") -> dict[str, Any]:
    """Return the ``quantization_config`` of a checkpoint in this format."""
    return {
        "quant_method": "awq",
        "bits": BITS,
        "group_size": group_size,
        "zero_point": True,
        "version": layout,
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
    check_format(folder, checkpoint.config.get("quantization_config"))
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


def check_format(folder: Path, quantization: Mapping[str, Any] | None) -> None:
    """Raise ``ModelError`` unless a ``quantization_config`` is of this format."""
    found = quantization or {}
    method, bits, layout = found.get("quant_method"), found.get("bits"), layout_of(found)
    if (method, bits) != ("awq", BITS) or layout not in get_args(Layout):
        raise ModelError(
            f"{folder}: is not in the format that can be read here (quant_method awq, bits {BITS}, "
            f"version {' or '.join(get_args(Layout))}); its config.json says quant_method {method}, "
            f"bits {bits}, version {layout}"
        )


def layout_of(quantization: Mapping[str, Any]) -> str:
    """Name of the layout by either of the keys it goes by."""
    return str(quantization.get("version", quantization.get("format", "gemm"))).lower()


def _plain_weights(checkpoint: Checkpoint, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Yield all tensors of the checkpoint in ``dtype``, the packed ones as plain weights."""
    for name, tensor in stored_tensors(checkpoint):
        if isinstance(tensor, PackedLinear):
            yield f"{name}.weight", tensor.weight().to(dtype)
        else:
            yield name, tensor.to(dtype)


def stored_tensors(checkpoint: Checkpoint) -> Iterator[tuple[str, Tensor | PackedLinear]]:
    """Yield tensors by their names, and packed weights by those of their layers.

    Raises ``ModelError`` for a layer whose parts do not fit together.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    quantization = checkpoint.config["quantization_config"]
    layout, group_size = cast("Layout", layout_of(quantization)), quantization.get("group_size")
    for name in checkpoint.tensors:
        tensor = checkpoint.tensor(name)
        linear, _, part = name.rpartition(".")
        if part not in PARTS:
            yield name, tensor
            continue
        parts.setdefault(linear, {})[part] = tensor
        if len(parts[linear]) == len(PARTS):
            packed = PackedLinear(**parts.pop(linear), layout=layout, group_size=group_size)
            _check_shapes(f"{checkpoint.folder}: {linear}", packed)
            yield linear, packed
    if parts:
        linear, found = next(iter(parts.items()))
        raise ModelError(
            f"{checkpoint.folder}: {linear} has {', '.join(found)} but needs {', '.join(PARTS)}; "
            "the checkpoint is damaged, make it again"
        )


def _check_shapes(where: str, packed: PackedLinear) -> None:
    if packed.layout == "gemm":
        inputs, words = packed.qweight.shape
        groups, outputs = packed.scales.shape
        fits = outputs == words * PER_INT32 and packed.qzeros.shape == (groups, words)
        fits = fits and inputs % groups == 0
    else:
        outputs, words = packed.qweight.shape
        inputs, size = words * PER_INT32, packed.group_size or 0
        fits = size > 0 and inputs % size == 0 and packed.qzeros.shape[0] == outputs
        fits = fits and packed.scales.shape == (outputs, packed.qzeros.shape[1] * PER_INT32)
        fits = fits and packed.scales.shape[1] * size >= inputs
    if not fits or packed.qweight.dtype != torch.int32:
        raise ModelError(
            f"{where}: qweight {packed.qweight.dtype} {tuple(packed.qweight.shape)}, qzeros "
            f"{tuple(packed.qzeros.shape)} and scales {tuple(packed.scales.shape)} do not fit "
            "together; the checkpoint is damaged or was saved after use, make it again"
        )
