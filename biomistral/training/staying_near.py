"""Pre-training that stays near its start: a Jeffreys divergence beside the next-token loss.

    loss = mean over predicted tokens of  cross-entropy + weight * J(model, start)

The start is a second, frozen copy of the model. Logits of both are computed block by block, and once
more in the backward pass, so no tensor of all logits is kept. Where the loss is only measured (in
evaluation mode) the divergence is left out. Knows nothing about documents: labels say what is asked.

Shapes: N tokens that are asked for, H hidden width, V vocabulary, B rows, T tokens in a row.
"""

from __future__ import annotations

import functools
import types
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import CausalLMOutputWithPast

from biomistral.errors import ModelError
from biomistral.training.answer_loss import jeffreys_divergence
from biomistral.training.cross_entropy import IGNORED, linear_cross_entropy, use_blocked_loss

_BLOCK_LOGITS = 1 << 24  # of one model at once


def stay_near(model: Any, start: Any, weight: float) -> None:
    """Make ``model(..., labels=...)`` add the divergence to ``start`` while it trains.

    Raises ``ModelError`` if the model's logits are not the plain product of its head.
    """
    if not use_blocked_loss(model):
        raise ModelError(
            f"training: jeffreys_weight needs a model whose logits are the product of its head and "
            f"nothing else, and {model.config.model_type} is not known to be one; leave it out"
        )
    start.eval().requires_grad_(False)
    forward = functools.partial(_forward, model.forward, start, weight)
    model.forward = types.MethodType(forward, model)


def summed_divergence(
    hidden: Tensor, head: Tensor, start_hidden: Tensor, start_head: Tensor
) -> Tensor:
    """Sum of J over N tokens, from hidden states (N, H) and heads (V, H), in nats."""
    rows = max(1, _BLOCK_LOGITS // len(head))
    total = torch.zeros((), device=hidden.device)
    for own, other in zip(torch.split(hidden, rows), torch.split(start_hidden, rows), strict=True):
        part: Any = checkpoint(_of_block, own, head, other, start_head, use_reentrant=False)
        total = total + part
    return total


def _of_block(hidden: Tensor, head: Tensor, start_hidden: Tensor, start_head: Tensor) -> Tensor:
    with torch.no_grad():
        start_logits = F.linear(start_hidden, start_head)
    return jeffreys_divergence(F.linear(hidden, head), start_logits).sum()


def _forward(
    measure: Any,
    start: Any,
    weight: float,
    model: Any,
    *arguments: Any,
    labels: Tensor | None = None,
    num_items_in_batch: Tensor | int | None = None,
    **inputs: Any,
) -> Any:
    if labels is None or not model.training:
        more = {} if labels is None else {"num_items_in_batch": num_items_in_batch}
        return measure(*arguments, labels=labels, **more, **inputs)
    inputs.pop("return_dict", None)
    hidden = model.get_decoder()(*arguments, **inputs).last_hidden_state.flatten(0, 1)  # (B T, H)
    with torch.no_grad():
        start_hidden = start.get_decoder()(*arguments, **inputs).last_hidden_state.flatten(0, 1)
    targets = F.pad(labels[:, 1:], (0, 1), value=IGNORED).flatten()
    asked = torch.nonzero(targets != IGNORED).flatten()
    head = model.get_output_embeddings().weight
    own = hidden.index_select(0, asked)
    num_items = float(len(asked)) if num_items_in_batch is None else num_items_in_batch
    nats = linear_cross_entropy(own, head, targets.index_select(0, asked), num_items)
    divergence = summed_divergence(
        own, head, start_hidden.index_select(0, asked), start.get_output_embeddings().weight
    )
    return CausalLMOutputWithPast(loss=nats + weight * divergence / num_items)
