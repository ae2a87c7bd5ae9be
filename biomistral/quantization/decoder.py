"""AWQ on a Llama-type decoder: which linear layers share an input, and what absorbs their scale.

Works through the model one layer at a time on the activations of the unquantized model, of which
only one layer's are kept. Each layer is computed in float32, replaced by its packed tensors and
dropped, so that memory falls as the work goes on. Tensors that stay plain become float16, the
type that every reader of the format expects.

Knows nothing about files, or where calibration rows come from.

Shapes: T tokens of a row, H width of the model, N outputs and K inputs of a linear layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from biomistral.errors import ModelError
from biomistral.models.awq import PARTS, PER_INT32
from biomistral.progress import Progress, ignore
from biomistral.quantization.awq import (
    InputStatistics,
    output_error,
    round_to_nearest,
    search_cut,
    search_scale,
)

SUPPORTED = ("llama", "mistral")


@dataclass(frozen=True)
class SharedInput:
    """Linear layers that read the same input, and the module whose output that input is."""

    linears: tuple[str, ...]
    source: str  # a norm or a linear layer; its rows are divided by the scale


SHARED_INPUTS = (
    SharedInput(("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "input_layernorm"),
    # With grouped queries one value head feeds several places of the input: no scale then.
    SharedInput(("self_attn.o_proj",), "self_attn.v_proj"),
    SharedInput(("mlp.gate_proj", "mlp.up_proj"), "post_attention_layernorm"),
    SharedInput(("mlp.down_proj",), "mlp.up_proj"),
)
LINEARS = tuple(name for shared in SHARED_INPUTS for name in shared.linears)
# Their outputs meet in a product: an error that is small in each alone need not be in the scores.
UNCUT = ("self_attn.q_proj", "self_attn.k_proj")


@dataclass
class Errors:
    """Relative errors of the quantized linear layers, by kind of layer, one entry a layer."""

    weight: dict[str, list[float]] = field(default_factory=dict)  # with the scales absorbed
    output: dict[str, list[float]] = field(default_factory=dict)  # on the calibration tokens

    def note(self, name: str, weight: Tensor, quantized: Tensor, gram: Tensor) -> None:
        """Take in one linear layer: its weight (N, K), what became of it, and its inputs' gram."""
        difference, kind = quantized - weight, name.rpartition(".")[-1]
        in_weight = _relative(float(difference.norm()), float(weight.norm()))
        in_output = _relative(output_error(difference, gram), output_error(weight, gram))
        self.weight.setdefault(kind, []).append(in_weight)
        self.output.setdefault(kind, []).append(math.sqrt(in_output))

    def means(self) -> dict[str, dict[str, float]]:
        """Mean over the layers: kind of error -> kind of layer -> fraction."""
        kinds = {"weight": self.weight, "output": self.output}
        return {
            key: {name: fmean(found) for name, found in kind.items()} for key, kind in kinds.items()
        }


def _relative(error: float, whole: float) -> float:
    return error / whole if error else 0.0


@dataclass
class RunningRow:
    """One calibration row on its way through the layers."""

    hidden: Tensor  # float32 (1, T, H)
    arguments: dict[str, Any]  # what each decoder layer is called with beside it


def check_supported(model: PreTrainedModel, group_size: int) -> None:
    """Raise ``ModelError`` unless ``model`` is of a known kind and its widths can be grouped."""
    kind = model.config.model_type
    if kind not in SUPPORTED:
        raise ModelError(
            f"model of type {kind}: AWQ is known here for {' and '.join(SUPPORTED)} only; "
            "use method: bitsandbytes"
        )
    layer = model.model.layers[0]
    for name in LINEARS:
        outputs, inputs = layer.get_submodule(name).weight.shape
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


@torch.no_grad()
def quantize_model(
    model: PreTrainedModel,
    rows: Iterable[tuple[Tensor, Sequence[int]]],
    group_size: int,
    progress: Progress = ignore,
) -> tuple[dict[str, Tensor], Errors]:
    """Quantize ``model``, consuming it, and return the tensors of its ``awq`` checkpoint.

    ``rows`` are token ids int64 (T,) without padding, and the lengths of the documents in each,
    which do not attend to each other. Raises ``ModelError`` if the model is broken (its numbers
    are not finite, or too large for float16).
    """
    running = list(_first_inputs(model, rows))
    layers = model.model.layers
    errors = Errors()
    tensors: dict[str, Tensor] = {}
    for index in range(len(layers)):
        progress(index, len(layers), "layers quantized")
        layer = layers[index].float()
        statistics = _run_layer(layer, running)
        prefix = f"model.layers.{index}."
        for name, tensor in quantize_layer(layer, statistics, group_size, errors).items():
            tensors[prefix + name] = _storable(prefix + name, tensor)
        layers[index] = nn.Identity()
    progress(len(layers), len(layers), "layers quantized")
    tied = model.all_tied_weights_keys if model.config.tie_word_embeddings else {}
    for name, tensor in model.state_dict().items():
        if name not in tied:
            tensors[name] = _storable(name, tensor)
    return tensors, errors


def quantize_layer(
    layer: nn.Module, statistics: dict[str, InputStatistics], group_size: int, errors: Errors
) -> dict[str, Tensor]:
    """Return the tensors of one decoder layer, its linear layers packed, and note their errors.

    ``statistics`` are of the input of each linear layer, by its name. Changes ``layer``
    and ``statistics``: both take in the scales.
    """
    # All scales first: a linear layer may absorb another's after its own has been found.
    for shared in SHARED_INPUTS:
        seen = statistics[shared.linears[0]]
        linears = [_linear(layer, name) for name in shared.linears]
        source = layer.get_submodule(shared.source)
        if cast("Tensor", source.weight).shape[0] == linears[0].in_features:
            scale = search_scale([linear.weight for linear in linears], seen, group_size)
            _absorb(source, linears, scale)
            statistics |= dict.fromkeys(shared.linears, seen.divided(scale))
    tensors = dict(layer.state_dict())
    for name in LINEARS:
        weight, gram = tensors.pop(f"{name}.weight"), statistics[name].gram
        cut = weight if name in UNCUT else search_cut(weight, gram, group_size)
        quantized = round_to_nearest(cut, group_size)
        errors.note(name, weight, quantized.weight(), gram)
        packed = quantized.packed()
        tensors |= {f"{name}.{part}": getattr(packed, part) for part in PARTS}
    return tensors


def _first_inputs(
    model: PreTrainedModel, rows: Iterable[tuple[Tensor, Sequence[int]]]
) -> Iterator[RunningRow]:
    """Yield each row as it comes to the first layer, by letting the model call a recorder."""
    model.model.embed_tokens.float()
    layers, recorder = model.model.layers, _Recorder()
    model.model.layers = nn.ModuleList([recorder])
    try:
        for ids, lengths in rows:
            # Restarting positions, no mask and no cache: only so are documents kept apart.
            positions = torch.cat([torch.arange(length) for length in lengths])
            model.model(
                input_ids=ids[None].to(model.device),
                position_ids=positions[None].to(model.device),
                use_cache=False,
            )
            yield RunningRow(recorder.hidden, recorder.arguments)
    finally:
        model.model.layers = layers


class _Recorder(nn.Module):
    """Stands for the decoder layers and keeps what the first of them would have been given."""

    hidden: Tensor
    arguments: dict[str, Any]

    def forward(self, hidden_states: Tensor, **arguments: Any) -> Tensor:
        self.hidden, self.arguments = hidden_states, arguments
        return hidden_states


def _run_layer(layer: nn.Module, running: Sequence[RunningRow]) -> dict[str, InputStatistics]:
    """Move all rows through ``layer`` and return the statistics of its linear layers' inputs."""
    statistics: dict[str, InputStatistics] = {}
    hooks = []
    for shared in SHARED_INPUTS:
        first = _linear(layer, shared.linears[0])
        seen = InputStatistics.empty(first.in_features, first.weight.device)
        statistics |= dict.fromkeys(shared.linears, seen)
        hooks.append(first.register_forward_pre_hook(_adder(seen)))
    for row in running:
        row.hidden = layer(row.hidden, **row.arguments)
    for hook in hooks:
        hook.remove()
    return statistics


def _adder(statistics: InputStatistics) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    return lambda _, arguments: statistics.add(arguments[0].flatten(0, -2))


def _linear(layer: nn.Module, name: str) -> nn.Linear:
    return cast("nn.Linear", layer.get_submodule(name))


def _absorb(source: nn.Module, linears: Sequence[nn.Linear], scale: Tensor) -> None:
    """Divide what ``source`` puts out by ``scale`` (K,), multiply what reads it: nothing changes."""
    for parameter in source.parameters():  # a weight (K,) or (K, ...), perhaps a bias (K,)
        parameter.data /= scale.view(-1, *[1] * (parameter.dim() - 1))
    for linear in linears:
        linear.weight.data *= scale


def _storable(name: str, tensor: Tensor) -> Tensor:
    """On the CPU, and float16 if it is of another floating type."""
    stored = tensor.cpu().half() if tensor.is_floating_point() else tensor.cpu()
    if stored.is_floating_point() and not stored.isfinite().all():
        raise ModelError(
            f"{name}: has numbers that are not finite, or too large for float16, the type of an "
            "awq checkpoint; use method: bitsandbytes, or look for what broke the model"
        )
    return stored
