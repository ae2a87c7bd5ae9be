"""Log-probabilities of texts read back: of every token, and of the likeliest ones at its place.

What an API calls ``echo``. It is computed by the engine of evaluation (``packed``, or ``padded`` for
other models) with the head in float32, so a sum over tokens is the number that scoring gives for the
same tokens, whoever else is in the batch. Knows nothing about texts or requests.

Shapes: R positions read, V vocabulary, K alternatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from biomistral.errors import ModelError
from biomistral.models.continuations import Encoded
from biomistral.models.packed import is_supported, run_packed
from biomistral.models.padded import run_padded
from biomistral.models.reading import Head, float32_head

Tops = tuple[tuple[int, float], ...]  # token and log-probability, the likeliest first

_BATCH_TOKENS = 2048
_ROWS = 32  # through the head at once: always as many, for a product's rounding depends on it


@dataclass(frozen=True, slots=True)
class Echo:
    """One sequence of N tokens, read back."""

    # (N,): of each token given those before it; the first has none. At most 0.
    logprobs: tuple[float | None, ...]
    tops: tuple[Tops, ...]  # (N,): at the place of each token; the first is empty
    following: Tops  # what the model would say next


@torch.inference_mode()
def echo(model: Any, sequences: Sequence[Sequence[int]], *, num_tops: int) -> list[Echo]:
    """Read sequences of token ids back; each has at least one and at most the model's context.

    ``num_tops`` (from 1) is how many of the likeliest tokens are given at each place. Raises
    ``ModelError`` if the model gives something that is no number.
    """
    # The tail ends with a token that is scored but not read, so the last real one is read from.
    encoded = [
        Encoded([ids[0]], [[*ids[1:], ids[0]]], len(ids), [()]) for ids in map(list, sequences)
    ]
    run = run_packed if is_supported(model) else run_padded
    logits_of = float32_head(model.get_output_embeddings())
    found: dict[int, Echo] = {}
    for indices, hidden, _, _ in run(model, encoded, _BATCH_TOKENS):
        start = 0
        for index in indices:
            ids = list(sequences[index])
            rows = hidden[start : start + len(ids)]
            start += len(ids)
            found[index] = _echo(logits_of, rows, ids, num_tops)
    return [found[index] for index in range(len(sequences))]


def _echo(logits_of: Head, hidden: Tensor, ids: list[int], num_tops: int) -> Echo:
    """Read one sequence: the hidden state of each of its tokens says what comes behind it."""
    following = torch.tensor([*ids[1:], 0], device=hidden.device)
    chosen: list[float] = []
    tops: list[Tops] = []
    for start in range(0, len(ids), _ROWS):
        rows = hidden[start : start + _ROWS]
        num_rows = rows.shape[0]
        if num_rows < _ROWS:
            rows = torch.cat([rows, rows.new_zeros(_ROWS - num_rows, rows.shape[1])])
        logits = logits_of(rows)[:num_rows]  # (R, V)
        if not bool(torch.isfinite(logits).all()):
            raise ModelError(
                "the model gives logits that are no numbers; its weights are broken, or it was run "
                "in too low a precision"
            )
        logprobs = logits - torch.logsumexp(logits, dim=-1, keepdim=True)
        wanted = following[start : start + num_rows, None]
        chosen += logprobs.gather(1, wanted)[:, 0].tolist()
        values, tokens = logprobs.topk(min(num_tops, logprobs.shape[1]), dim=-1)  # (R, K)
        tops += [
            tuple(zip(*pair, strict=True))
            for pair in zip(tokens.tolist(), values.tolist(), strict=True)
        ]
    return Echo((None, *chosen[:-1]), ((), *tops[:-1]), tops[-1])
