"""AWQ on one layer of a Llama-type decoder: which linear layers share an input, what absorbs a scale.

A layer comes with its plain weights and the statistics of what its linear layers read, and leaves
as the tensors of an ``awq`` checkpoint. Nothing of it is changed: scales are kept beside the weights
and come in when a block of a weight is computed in float32.

Knows nothing about files, other layers, or where calibration rows come from.

Shapes: N outputs and K inputs of a linear layer, H heads that read one value head, D head width.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, cast

import torch
from torch import Tensor, nn

from biomistral.errors import ModelError
from biomistral.models.awq import PER_INT32, Layout, pack_linear
from biomistral.quantization.awq import (
    InputStatistics,
    QuantizedWeight,
    ScaledWeight,
    round_to_nearest,
    search_cut,
    search_scale,
)

SUPPORTED = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True)
class SharedInput:
    """Linear layers that read the same input, and the module whose output that input is."""

    linears: tuple[str, ...]
    source: str  # a norm or a linear layer; its rows are divided by the scale


SHARED_INPUTS = (
    SharedInput(("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "input_layernorm"),
    SharedInput(("self_attn.o_proj",), "self_attn.v_proj"),
    SharedInput(("mlp.gate_proj", "mlp.up_proj"), "post_attention_layernorm"),
    SharedInput(("mlp.down_proj",), "mlp.up_proj"),
)
LINEARS = tuple(name for shared in SHARED_INPUTS for name in shared.linears)
# Their outputs meet in a product: an error that is small in each alone need not be in the scores.
UNCUT = ("self_attn.q_proj", "self_attn.k_proj")


@dataclass
class Errors:
    """Relative errors of the quantized linear layers: kind of layer -> one entry a layer."""

    weight: dict[str, list[float]] = field(default_factory=dict)  # with the scales absorbed
    output: dict[str, list[float]] = field(default_factory=dict)  # on the calibration tokens

    def note(self, name: str, weight: float, output: float) -> None:
        """Take in the errors of one linear layer."""
        kind = name.rpartition(".")[-1]
        self.weight.setdefault(kind, []).append(weight)
        self.output.setdefault(kind, []).append(output)

    def extend(self, other: Mapping[str, Mapping[str, list[float]]]) -> None:
        """Take in the errors of a layer as ``dataclasses.asdict`` gives them."""
        for own, added in ((self.weight, other["weight"]), (self.output, other["output"])):
            for kind, values in added.items():
                own.setdefault(kind, []).extend(values)

    def means(self) -> dict[str, dict[str, float]]:
        """Mean over the layers: kind of error -> kind of layer -> fraction."""
        kinds = {"weight": self.weight, "output": self.output}
        return {
            key: {name: fmean(found) for name, found in kind.items()} for key, kind in kinds.items()
        }


def check_supported(config: Any, layers: Sequence[nn.Module], group_size: int) -> None:
    """Raise ``ModelError`` unless the model is of a known kind and its widths can be grouped."""
    kind = config.model_type
    kinds_of_layer = set(getattr(config, "layer_types", None) or ["one"])
    if kind not in SUPPORTED or len(kinds_of_layer) > 1 or not layers:
        raise ModelError(
            f"model of type {kind}: AWQ is known here for {', '.join(SUPPORTED)} only, with layers "
            "of one kind; use method: bitsandbytes"
        )
    for name in LINEARS:
        outputs, inputs = _linear(layers[0], name).weight.shape
        if inputs % group_size:
            fitting = [size for size in (128, 64, 32, 16, 8) if inputs % size == 0]
            raise ModelError(
                f"{name}: its {inputs} inputs are not a multiple of group_size {group_size}; "
                f"set group_size to one of {fitting}, or use method: bitsandbytes"
            )
        if outputs % PER_INT32:
            raise ModelError(
                f"{name}: its {outputs} outputs are not a multiple of {PER_INT32}, which the awq "
                "format needs; use method: bitsandbytes"
            )


@contextlib.contextmanager
def statistics_of(layer: nn.Module, group_size: int) -> Iterator[dict[str, InputStatistics]]:
    """Let ``layer`` fill statistics of its linear layers' inputs while it is run.

    They are by the name of the linear layer; those that share an input share them.
    """
    statistics: dict[str, InputStatistics] = {}
    hooks = []
    for seed, shared in enumerate(SHARED_INPUTS):
        first = _linear(layer, shared.linears[0])
        seen = InputStatistics(first.in_features, group_size, first.weight.device, seed)
        statistics |= dict.fromkeys(shared.linears, seen)
        hooks.append(first.register_forward_pre_hook(_adder(seen)))
    try:
        yield statistics
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def quantize_layer(
    layer: nn.Module,
    statistics: Mapping[str, InputStatistics],
    group_size: int,
    errors: Errors,
    layout: Layout = "gemm",
) -> dict[str, Tensor]:
    """Return the tensors of one decoder layer, its linear layers packed, and note their errors.

    ``statistics`` are of the input of each linear layer, by its name; they take in the scales.
    """
    columns, rows = _find_scales(layer, statistics, group_size)
    tensors: dict[str, Tensor] = {}
    for name, tensor in layer.state_dict().items():
        module, _, part = name.rpartition(".")
        if module in LINEARS and part == "weight":
            weight = ScaledWeight(tensor, columns.get(module), rows.get(module))
            cut = None if module in UNCUT else statistics[module].blocks
            quantized = _quantize(module, weight, statistics[module], cut, group_size, errors)
            packed = pack_linear(quantized.levels, quantized.zeros, quantized.scales, layout)
            tensors |= {f"{module}.{part}": value for part, value in packed.items()}
        else:  # a norm, or a bias
            tensors[name] = tensor.float() / rows[module] if module in rows else tensor
    return tensors


def _find_scales(
    layer: nn.Module, statistics: Mapping[str, InputStatistics], group_size: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What the columns of each linear layer are multiplied by, and the rows of each source divided."""
    columns: dict[str, Tensor] = {}
    rows: dict[str, Tensor] = {}
    for shared in SHARED_INPUTS:
        seen = statistics[shared.linears[0]]
        source = cast("Tensor", layer.get_submodule(shared.source).weight)
        # With grouped queries one row of the value layer feeds several inputs: one scale for them.
        width = getattr(layer.self_attn, "head_dim", 1) if "self_attn" in shared.source else 1
        magnitude = seen.magnitude.view(source.shape[0] // width, -1, width)  # (N / D, H, D)
        shape, magnitude = magnitude.shape, magnitude.mean(dim=1, keepdim=True)
        weights = [ScaledWeight(_linear(layer, name).weight) for name in shared.linears]
        scale = search_scale(weights, seen, group_size, magnitude.expand(shape).flatten())
        seen.divide(scale)
        columns |= dict.fromkeys(shared.linears, scale)
        rows[shared.source] = scale.view(shape)[:, 0].flatten()
    return columns, rows


def _quantize(
    name: str,
    weight: ScaledWeight,
    seen: InputStatistics,
    cut: Tensor | None,
    group_size: int,
    errors: Errors,
) -> QuantizedWeight:
    """Round one weight in blocks, within the ranges found by ``cut`` (G, g, g) if it is given."""
    parts = []
    in_weight, in_output = [0.0, 0.0], [0.0, 0.0]  # squared: of the difference, of the weight
    for _, block in weight.blocks():
        within = block if cut is None else search_cut(block, cut, group_size)
        parts.append(round_to_nearest(within, group_size))
        for index, matrix in enumerate((parts[-1].weight() - block, block)):
            in_weight[index] += float(matrix.square().sum())
            in_output[index] += seen.output_error(matrix)
    errors.note(name, _relative(in_weight), _relative(in_output))
    return QuantizedWeight(
        levels=torch.cat([part.levels for part in parts]),
        zeros=torch.cat([part.zeros for part in parts]),
        scales=torch.cat([part.scales for part in parts]),
    )


def _relative(squares: list[float]) -> float:
    error, whole = squares
    return math.sqrt(error / whole) if error else 0.0


def _adder(statistics: InputStatistics) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    return lambda _, arguments: statistics.add(arguments[0].flatten(0, -2))


def _linear(layer: nn.Module, name: str) -> nn.Linear:
    return cast("nn.Linear", layer.get_submodule(name))
