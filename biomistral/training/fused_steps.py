"""The layers of a decoder for training on a CPU in bfloat16: element-wise steps in one pass each.

Norms, rotary positions and gates are a third of a training step of a small model when PyTorch does
them operation by operation (measured, ``benchmarks/results/train.md``). Here ``fused_steps.c`` does
each in one pass, forward and backward, and products that share an input add up their gradients as
they go. ``fuse`` puts this into the layers of a model like Mistral's; whatever is different from
what is known (another type, device or kind of layer, a bias, a cache) is computed as before.

Results differ from those of PyTorch by bfloat16 rounding, of which there is less.

Shapes: N tokens (rows and places), H hidden width, F width of the feed-forward part, D head width.
"""

from __future__ import annotations

import ctypes
import functools
import types
from collections.abc import Callable
from ctypes import c_float, c_int, c_int64, c_void_p
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from biomistral.models.compiling import compiled
from biomistral.models.parallel import share_out

_SOURCE = Path(__file__).with_suffix(".c")
_P, _N = c_void_p, c_int64
_SIGNATURES = {
    "norm_forward": (None, (_P, _P, _P, _N, _N, c_float)),
    "norm_backward": (None, (_P, _P, _P, _P, _P, _N, _N, c_float)),
    "gate_forward": (None, (_P, _P, _P, _N)),
    "gate_backward": (None, (_P, _P, _P, _P, _P, _P, _N)),
    "turn": (None, (_P, _P, _P, _P, _N, _N, _N, c_int)),
    "logits_to_gradients": (None, (_P, _P, _P, _P, _N, _N)),
}
_ROWS_OF_A_SUM = 64  # so many rows are added up at a time, however many threads there are


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the compiled functions; None if there is no compiler."""
    return compiled(_SOURCE, _SIGNATURES)


def is_ours(*tensors: Tensor) -> bool:
    """Whether the compiled functions can compute with these."""
    return all(t.dtype == torch.bfloat16 and t.device.type == "cpu" for t in tensors) and (
        library() is not None
    )


def _functions() -> ctypes.CDLL:
    found = library()
    assert found is not None, "asked before"
    return found


def _at(tensor: Tensor, row: int) -> int:
    """Address of a row of a contiguous tensor."""
    return tensor.data_ptr() + row * tensor.stride(0) * tensor.element_size()


# --- the loss -------------------------------------------------------------------------------------


def logits_to_gradients(logits: Tensor, labels: Tensor) -> Tensor:
    """Overwrite logits (N, V) with the gradient of their cross-entropy; return it in nats, (N,).

    Raises ``IndexError`` for a label that is not one of V.
    """
    nats = torch.empty(len(logits))
    labels = labels.long().contiguous()
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:
        raise IndexError(f"a label is not among {logits.shape[1]} logits")

    def work(first: int, last: int) -> None:
        scratch = torch.empty(logits.shape[1])
        _functions().logits_to_gradients(
            *(_at(logits, first), _at(labels, first), _at(nats, first)),
            *(scratch.data_ptr(), last - first, logits.shape[1]),
        )

    share_out(work, len(logits))
    return nats


# --- steps and their gradients --------------------------------------------------------------------


class _Norm(torch.autograd.Function):
    """RMS norm of (N, H)."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        ctx.eps = eps
        out = torch.empty_like(hidden)

        def work(first: int, last: int) -> None:
            _functions().norm_forward(
                *(_at(hidden, first), weight.data_ptr(), _at(out, first)),
                *(last - first, hidden.shape[1], eps),
            )

        share_out(work, len(hidden))
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        hidden, weight = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        num_rows, width = hidden.shape
        out = torch.empty_like(hidden)
        sums = torch.zeros(-(-num_rows // _ROWS_OF_A_SUM), width)

        def work(first: int, last: int) -> None:
            for part in range(first, last):
                row = part * _ROWS_OF_A_SUM
                _functions().norm_backward(
                    *(_at(hidden, row), weight.data_ptr(), _at(gradient, row), _at(out, row)),
                    *(_at(sums, part), min(_ROWS_OF_A_SUM, num_rows - row), width, ctx.eps),
                )

        share_out(work, len(sums))
        return out, sums.sum(0).to(weight.dtype), None


class _FeedForward(torch.autograd.Function):
    """``(silu(x @ gate.T) * (x @ up.T)) @ down.T`` of (N, H)."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
        opened, let = hidden @ gate.T, hidden @ up.T  # (N, F)
        ctx.save_for_backward(hidden, gate, up, down, opened, let)
        product = torch.empty_like(opened)

        def work(first: int, last: int) -> None:
            _functions().gate_forward(
                *(_at(opened, first), _at(let, first), _at(product, first)),
                (last - first) * opened.shape[1],
            )

        share_out(work, len(opened))
        return product @ down.T

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        hidden, gate, up, down, opened, let = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        given = gradient @ down  # (N, F)
        product, of_gate, of_up = (torch.empty_like(opened) for _ in range(3))

        def work(first: int, last: int) -> None:
            _functions().gate_backward(
                *(_at(tensor, first) for tensor in (opened, let, given, of_gate, of_up, product)),
                (last - first) * opened.shape[1],
            )

        share_out(work, len(opened))
        back = torch.addmm(of_gate @ gate, of_up, up)
        return back, of_gate.T @ hidden, of_up.T @ hidden, gradient.T @ product


class _Projections(torch.autograd.Function):
    """Queries, keys and values of (N, H); the first two turned by ``cosine`` and ``sine`` (N, D)."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cosine: Tensor,
        sine: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(hidden, query, key, value, cosine, sine)
        queries, keys = hidden @ query.T, hidden @ key.T
        for each in (queries, keys):
            _turn(each, each, cosine, sine)
        return queries, keys, hidden @ value.T

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, query, key, value, cosine, sine = ctx.saved_tensors
        given = [gradient.contiguous() for gradient in gradients]
        turned = [torch.empty_like(each) for each in given[:2]]
        for each, out in zip(given, turned, strict=False):
            _turn(each, out, cosine, sine, back=True)
        parts = (*turned, given[2])
        back = parts[0] @ query
        for part, weight in zip(parts[1:], (key, value), strict=True):
            back.addmm_(part, weight)
        return back, *(part.T @ hidden for part in parts), None, None


def _turn(x: Tensor, out: Tensor, cosine: Tensor, sine: Tensor, *, back: bool = False) -> None:
    """Turn the heads of (N, heads x D) by the angles of their tokens, (N, D)."""
    width = cosine.shape[1]

    def work(first: int, last: int) -> None:
        _functions().turn(
            *(_at(x, first), _at(out, first), _at(cosine, first), _at(sine, first)),
            *(last - first, x.shape[1] // width, width, int(back)),
        )

    share_out(work, len(x))


# --- in a model -----------------------------------------------------------------------------------


def fuse(model: Any) -> bool:
    """Let the layers of ``model`` compute in fused steps; say whether there were any to change."""
    if not is_ours(*model.parameters()):
        return False
    changed = 0
    for module in model.modules():
        forward = _forward_of(module)
        if forward is not None:
            module.forward = types.MethodType(functools.partial(forward, module.forward), module)
            changed += 1
    return changed > 0


def _forward_of(module: nn.Module) -> Callable[..., Any] | None:
    """What replaces the forward pass of a layer of a known kind."""
    kind = type(module).__name__
    if kind in {"MistralRMSNorm", "LlamaRMSNorm"}:
        return _norm
    if kind in {"MistralMLP", "LlamaMLP"} and type(module.act_fn).__name__ == "SiLUActivation":
        return _feed_forward if _are_matrices(module, "gate_proj", "up_proj", "down_proj") else None
    if kind in {"MistralAttention", "LlamaAttention"}:
        return _attend if _are_matrices(module, "q_proj", "k_proj", "v_proj") else None
    return None


def _are_matrices(module: nn.Module, *names: str) -> bool:
    """Whether these layers are their weight alone: no bias, not quantized, without an adapter."""
    layers = [getattr(module, name) for name in names]
    return all(type(layer) is nn.Linear and layer.bias is None for layer in layers)


def _norm(plain: Any, norm: Any, hidden: Tensor) -> Tensor:
    if not is_ours(hidden):
        result: Tensor = plain(hidden)
        return result
    flat = hidden.reshape(-1, hidden.shape[-1]).contiguous()
    out: Tensor = _Norm.apply(  # type: ignore[no-untyped-call]
        flat, norm.weight, norm.variance_epsilon
    )
    return out.view(hidden.shape)


def _feed_forward(plain: Any, mlp: Any, hidden: Tensor) -> Tensor:
    if not is_ours(hidden):
        result: Tensor = plain(hidden)
        return result
    flat = hidden.reshape(-1, hidden.shape[-1]).contiguous()
    weights = (layer.weight for layer in (mlp.gate_proj, mlp.up_proj, mlp.down_proj))
    out: Tensor = _FeedForward.apply(flat, *weights)  # type: ignore[no-untyped-call]
    return out.view(hidden.shape)


def _attend(
    plain: Any,
    layer: Any,
    hidden_states: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    attention_mask: Tensor | None = None,
    past_key_values: Any = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention of a layer whose function is ours, for (B, T, H); what is refused there is refused."""
    from biomistral.training.attention import NAME, document_attention

    cosine, sine = position_embeddings
    known = past_key_values is None and layer.config._attn_implementation == NAME
    if not known or not is_ours(hidden_states, cosine, sine):
        result: tuple[Tensor, None] = plain(
            hidden_states, position_embeddings, attention_mask, past_key_values, **others
        )
        return result
    rows, length, _ = hidden_states.shape
    angles = [each.expand(rows, length, -1).flatten(0, 1).contiguous() for each in (cosine, sine)]
    weights = (part.weight for part in (layer.q_proj, layer.k_proj, layer.v_proj))
    flat = hidden_states.flatten(0, 1).contiguous()
    heads = [
        each.view(rows, length, -1, layer.head_dim).transpose(1, 2)
        for each in _Projections.apply(flat, *weights, *angles)  # type: ignore[no-untyped-call]
    ]
    out, _ = document_attention(
        *(layer, *heads, attention_mask),
        dropout=layer.attention_dropout if layer.training else 0.0,
        scaling=layer.scaling,
        sliding_window=getattr(layer.config, "sliding_window", None),
        **others,
    )
    attended: Tensor = layer.o_proj(out.reshape(rows, length, -1))
    return attended, None
