"""The loss on answers without the logits of all of them at once.

``use_answer_loss`` makes a model return the summed loss of the tokens that are learned. Logits are
computed for these only, some at a time: plain cross-entropy as in pre-training (``cross_entropy``);
with something against overconfidence each block is computed again in the backward pass. Of models
whose head is not known to be plain, all answers are computed at once.

Knows nothing about examples. Shapes: B rows, T tokens in a row, N answer tokens, H hidden width,
V vocabulary, K letters.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import CausalLMOutputWithPast

from biomistral.training.answer_loss import Calibrating, answer_losses
from biomistral.training.cross_entropy import IGNORED, PLAIN_HEADS, linear_cross_entropy

BLOCK_LOGITS = 1 << 24  # logits at once, where they are needed with their graph
PLAIN = Calibrating()


@dataclass(frozen=True)
class Start:
    """The model that training started from, as far as a batch needs it; without gradients."""

    states: Tensor  # (N, H) last hidden states where answers are due, or (N, V) logits
    logits_of: Callable[[Tensor], Tensor]  # of some of these


@dataclass(frozen=True)
class Answers:
    """What is asked of a forward pass: the loss of these answers, summed."""

    labels: Tensor  # (B, T)
    letters: Tensor | None = None  # (N, K)
    calibrating: Calibrating = PLAIN
    start: Start | None = None

    @property
    def due(self) -> Tensor:
        """Places whose next token is learned.  # (B, T), never the last."""
        due = torch.zeros_like(self.labels, dtype=torch.bool)
        due[:, :-1] = self.labels[:, 1:] != IGNORED
        return due

    @property
    def targets(self) -> Tensor:
        """Tokens that are learned, row by row.  # (N,)."""
        targets = self.labels[:, 1:]
        return targets[targets != IGNORED]


def base_of(model: Any) -> Any:
    """The model itself, of one that may have an adapter."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def has_plain_head(model: Any) -> bool:
    """Whether logits are known to be the head's output for the last hidden state."""
    return base_of(model).config.model_type in PLAIN_HEADS


def use_answer_loss(model: Any) -> None:
    """Make ``model(..., answers=...)`` return the summed loss of its answers; else change nothing."""
    base = base_of(model)
    base.forward = types.MethodType(functools.partial(_forward, base.forward), base)
    # Read by the Trainer, which then counts the answers of all passes of a step.
    base.accepts_loss_kwargs = True


def states_at_answers(model: Any, inputs: Mapping[str, Any], due: Tensor) -> Tensor:
    """What the head turns into logits, where answers are due; logits of an unknown head."""
    base = base_of(model)
    if has_plain_head(base):
        states: Tensor = base.get_decoder()(**inputs).last_hidden_state[due]  # (N, H)
        return states
    return _logits_at_once(base, inputs, due)


def head_of(model: Any) -> Callable[[Tensor], Tensor]:
    """What gives logits of ``states_at_answers``."""
    base = base_of(model)
    head: Callable[[Tensor], Tensor] = base.get_output_embeddings()
    return head if has_plain_head(base) else _same


def _same(logits: Tensor) -> Tensor:
    return logits


def _forward(
    plain_forward: Any, model: Any, *arguments: Any, answers: Answers | None = None, **inputs: Any
) -> Any:
    if answers is None:
        return plain_forward(*arguments, **inputs)
    inputs = {name: value for name, value in inputs.items() if value is not None}
    inputs.pop("return_dict", None)
    if has_plain_head(model):
        states = model.get_decoder()(*arguments, **inputs).last_hidden_state[answers.due]
    else:
        states = _logits_at_once(plain_forward, inputs, answers.due)
    return CausalLMOutputWithPast(loss=summed_loss(states, head_of(model), answers))


def _logits_at_once(forward: Any, inputs: Mapping[str, Any], due: Tensor) -> Tensor:
    """Logits where answers are due, row by row; the head is asked for these columns only.  # (N, V)."""
    columns = due.any(0).nonzero()[:, 0]
    logits: Tensor = forward(**inputs, logits_to_keep=columns).logits[due[:, columns]]
    return logits


def summed_loss(states: Tensor, head: Any, answers: Answers) -> Tensor:
    """Sum of the losses of all answers, from what the head makes logits of."""
    targets = answers.targets
    weight = getattr(head, "weight", None)  # none of an unknown head, whose logits are here already
    # A quantized head, or one with an adapter, is another class; and only its own call is right.
    if answers.calibrating == PLAIN and type(head) is nn.Linear and not _has_bias(head):
        nats: Tensor = linear_cross_entropy(states, head.weight, targets, 1.0)
        return nats
    rows = max(1, BLOCK_LOGITS // (states.shape[-1] if weight is None else len(weight)))
    total = states.new_zeros((), dtype=torch.float32)
    # Once even where nothing is learned: other processes wait for a gradient of every weight.
    for start in range(0, max(1, len(targets)), rows):
        part = slice(start, start + rows)
        block = functools.partial(_of_block, head, answers, targets, part)
        if len(targets) <= rows:
            total = total + block(states[part])
        else:
            total = total + checkpoint(block, states[part], use_reentrant=False)
    return total


def _has_bias(head: nn.Linear) -> bool:
    return getattr(head, "bias", None) is not None


def _of_block(head: Any, answers: Answers, targets: Tensor, part: slice, states: Tensor) -> Tensor:
    start = answers.start
    start_logits = None
    if start is not None:
        with torch.no_grad():
            start_logits = start.logits_of(start.states[part])
    logits: Tensor = head(states)  # (N, V)
    return answer_losses(
        logits,
        targets[part],
        letters=None if answers.letters is None else answers.letters[part],
        calibrating=answers.calibrating,
        start_logits=start_logits,
    ).sum()
