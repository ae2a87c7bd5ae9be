"""Cross-entropy of a linear head, without a tensor of all logits.

Logits of a block of tokens are computed, turned into their own gradient in place, multiplied back
and forgotten; so memory holds one block of (rows, V) and the step needs three matrix products, as
without blocks, and a third of the passes over logits. The arithmetic on logits is in float32.

``use_blocked_loss`` puts it into a model; on CUDA with liger-kernel installed that library's does
the same. Knows nothing about documents: labels say what is asked for.

Shapes: N tokens that are asked for, H hidden width, V vocabulary, B rows, T tokens in a row.
"""

from __future__ import annotations

import functools
import importlib.util
import types
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.modeling_outputs import CausalLMOutputWithPast

from biomistral.training import fused_steps

IGNORED = -100  # label that cross-entropy leaves out

# Logits in memory at once. On a CPU, products of fewer rows are slower and the sum over blocks costs
# more than it saves below 1,000 rows of a vocabulary of 32,000 (measured).
_BLOCK_LOGITS = {"cpu": 1 << 26, "cuda": 1 << 27}
# Of these, those in float32 at once: what stays in the cache of one core.
_INNER_LOGITS = {"cpu": 1 << 20, "cuda": 1 << 25}
_IS_BLOCKED = "_biomistral_blocked_loss"
_LEAST_PROBABILITY = 1e-38  # of float32; a loss of 87 nats
# Models whose logits are the head's product with the last hidden state, and nothing else.
PLAIN_HEADS = {"mistral", "llama", "qwen2", "qwen3", "mixtral", "phi3", "gpt_neox", "olmo2"}


@torch.compiler.disable  # type: ignore[untyped-decorator]
def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, labels: Tensor, num_items: Tensor | float | None = None
) -> Tensor:
    """Sum of ``-log softmax(hidden @ weight.T)[labels]`` over ``num_items`` (default: labels asked for).

    ``hidden`` is (N, H), ``weight`` (V, H), ``labels`` (N,) with ``IGNORED`` where nothing is asked.
    Under autocast the products are in its type. NaN if nothing is asked for and ``num_items`` is
    None, as in PyTorch.
    """
    asked = torch.nonzero(labels != IGNORED).flatten()
    if num_items is None:
        num_items = float(len(asked)) if len(asked) else float("nan")
    if len(asked) < len(labels):
        hidden, labels = hidden.index_select(0, asked), labels.index_select(0, asked)
    hidden, weight = _in_autocast(hidden, weight)
    nats: Tensor = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden, weight, labels
    )
    return nats / num_items


def token_losses(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """Loss of each token in nats, float32, 0 where nothing is asked: (N,). Without gradients."""
    losses = torch.zeros(labels.shape, device=hidden.device)
    hidden, weight = _in_autocast(hidden, weight)
    asked = torch.nonzero(labels != IGNORED).flatten()
    with torch.no_grad():
        for part in torch.split(asked, _rows(weight, _BLOCK_LOGITS)):
            logits = F.linear(hidden.index_select(0, part), weight)
            losses[part] = F.cross_entropy(logits.float(), labels[part], reduction="none")
    return losses


def _in_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Tensors in the type of autocast, where that is on."""
    kind = tensors[0].device.type
    if not torch.is_autocast_enabled(kind):
        return tensors
    return tuple(tensor.to(torch.get_autocast_dtype(kind)) for tensor in tensors)


class _LinearCrossEntropy(torch.autograd.Function):
    """The sum over all tokens; gradients are made in the forward pass, while the logits are there."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
        wants_hidden, wants_weight, _ = ctx.needs_input_grad
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        grad_weight: Tensor | None = None
        nats = torch.zeros((), dtype=torch.float32, device=hidden.device)
        rows = min(_rows(weight, _BLOCK_LOGITS), max(1, len(hidden)))
        block = hidden.new_empty(rows, len(weight))
        for start in range(0, len(hidden), rows):
            part, asked = hidden[start : start + rows], labels[start : start + rows]
            logits = torch.mm(part, weight.T, out=block[: len(part)])
            nats += _to_gradients(logits, asked)
            if grad_hidden is not None:
                torch.mm(logits, weight, out=grad_hidden[start : start + rows])
            if wants_weight:
                grad_weight = _added(grad_weight, logits.T @ part, is_only=rows >= len(hidden))
        if wants_weight and grad_weight is None:  # no token at all
            grad_weight = torch.zeros_like(weight)
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.dtype = weight.dtype
        return nats

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        factor = gradients[0]
        return (
            None if grad_hidden is None else grad_hidden.mul_(factor),
            None if grad_weight is None else grad_weight.mul_(factor).to(ctx.dtype),
            None,
        )


def _added(total: Tensor | None, part: Tensor, *, is_only: bool) -> Tensor:
    """Sum of blocks, in float32: in bfloat16 later blocks would be rounded away."""
    if total is None:
        return part if is_only else part.float()
    return total.add_(part)


def _rows(weight: Tensor, logits_at_once: dict[str, int]) -> int:
    return max(1, logits_at_once.get(weight.device.type, 1 << 26) // len(weight))


def _to_gradients(logits: Tensor, labels: Tensor) -> Tensor:
    """Overwrite logits (N, V) with the gradient of their summed loss; return the sum, in nats."""
    if fused_steps.is_ours(logits):
        return fused_steps.logits_to_gradients(logits, labels).sum()
    nats = torch.zeros((), dtype=torch.float32, device=logits.device)
    rows = max(1, _INNER_LOGITS.get(logits.device.type, 1 << 20) // logits.shape[1])
    for part, asked in zip(
        torch.split(logits, rows), torch.split(labels[:, None], rows), strict=True
    ):
        probabilities = torch.softmax(part, -1, dtype=torch.float32)
        of_labels = probabilities.gather(1, asked)
        nats -= of_labels.clamp_min(_LEAST_PROBABILITY).log().sum()
        part.copy_(probabilities)
        part.scatter_(1, asked, (of_labels - 1).to(part.dtype))
    return nats


# --- in a model -----------------------------------------------------------------------------------


def use_blocked_loss(model: Any) -> bool:
    """Make ``model(..., labels=...)`` compute its loss in blocks; say whether it could be done.

    The output then has a loss and no logits; without labels nothing changes. Other architectures
    than those known to have a plain head are left as they are.
    """
    if model.config.model_type not in PLAIN_HEADS or model.get_output_embeddings().bias is not None:
        return False
    plain_forward = model.forward

    def forward(own: Any, *arguments: Any, **inputs: Any) -> Any:  # torch.compile wants a function
        return _forward(plain_forward, own, *arguments, **inputs)

    model.forward = types.MethodType(forward, model)
    setattr(model, _IS_BLOCKED, True)
    # Read by the Trainer, which then divides by the tokens of all accumulated passes.
    model.accepts_loss_kwargs = True
    return True


def losses_of(model: Any, batch: dict[str, Any]) -> Tensor:
    """Loss at each place of a batch, of the token that follows: (B, T), float32, 0 where not asked.

    Without gradients. The model may be one that ``use_blocked_loss`` has changed, or not.
    """
    if getattr(model, _IS_BLOCKED, False):
        losses: Tensor = model(**batch, use_cache=False, each_token=True).loss
        return losses
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    with torch.no_grad():
        logits = model(**inputs, use_cache=False).logits.float().transpose(1, 2)  # (B, V, T)
    return F.cross_entropy(logits, _following(batch["labels"]), reduction="none")


def _following(labels: Tensor) -> Tensor:
    """Labels (B, T) at the places where they are predicted."""
    return F.pad(labels[:, 1:], (0, 1), value=IGNORED)


def _forward(
    plain_forward: Any,
    model: Any,
    *arguments: Any,
    labels: Tensor | None = None,
    num_items_in_batch: Tensor | int | None = None,
    each_token: bool = False,
    **inputs: Any,
) -> Any:
    if labels is None:
        return plain_forward(*arguments, **inputs)
    inputs.pop("return_dict", None)
    hidden = model.get_decoder()(*arguments, **inputs).last_hidden_state  # (B, T, H)
    # Taken here, inside the model's forward: where weights are sharded, they are whole only now.
    weight = model.get_output_embeddings().weight
    flat, targets = hidden.flatten(0, 1), _following(labels).flatten()
    if each_token:
        return CausalLMOutputWithPast(loss=token_losses(flat, weight, targets).view(labels.shape))
    return CausalLMOutputWithPast(loss=_best(hidden)(flat, weight, targets, num_items_in_batch))


def _best(hidden: Tensor) -> Any:
    return _by_liger if hidden.is_cuda and _has_liger() else linear_cross_entropy


@functools.cache
def _has_liger() -> bool:
    return importlib.util.find_spec("liger_kernel") is not None


def _by_liger(
    hidden: Tensor, weight: Tensor, labels: Tensor, num_items: Tensor | float | None = None
) -> Tensor:
    """The same in liger's kernels; used on CUDA where the library is installed."""
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    hidden, weight = _in_autocast(hidden, weight)
    reduction = "mean" if num_items is None else "sum"
    nats: Tensor = liger_fused_linear_cross_entropy(
        hidden, weight, labels, ignore_index=IGNORED, reduction=reduction
    )
    return nats if num_items is None else nats / num_items
