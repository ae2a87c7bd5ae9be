"""From hidden states to log-probabilities of tokens: the output head, in float32, a few rows at a time.

bfloat16 has so few logits that the letters of a question would often tie, so the head is taken in
float32, at the places that are read only. It always gets the same number of rows, for a matrix
product of another shape may round differently, and a question's numbers must not depend on its
company. Knows nothing about attention, prompts or what the probabilities are for.

Shapes: R positions read, V vocabulary, H hidden width, N log-probabilities wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from biomistral.models.continuations import Encoded

Head = Callable[[Tensor], Tensor]  # (R, H) to float32 logits (R, V)

# Rows that go through the head at once: 16 MB of logits with a vocabulary of 128,000.
_ROWS = 32


@dataclass(frozen=True, slots=True)
class Reads:
    """Which tokens' log-probabilities are wanted, where, and for what."""

    places: np.ndarray  # (N,), rows of the hidden states, ascending
    tokens: np.ndarray  # (N,)
    continuations: np.ndarray  # (N,), numbered through all requests of the batch
    num_continuations: int


def reads_of(items: Sequence[Encoded]) -> Reads:
    """Number the places of several requests through, in the order of ``Encoded.row``.

    The first place of a request is the end of its trunk, where the first token of every tail is
    read; the others are the tokens of its tails but the last ones, tail after tail.
    """
    wanted: list[tuple[int, int, int]] = []
    place = continuation = 0
    for item in items:
        end_of_trunk = place
        place += 1
        for tail, others in zip(item.tails, item.alternatives, strict=True):
            wanted += [(end_of_trunk, token, continuation) for token in (tail[0], *others)]
            for token in tail[1:]:
                wanted.append((place, token, continuation))
                place += 1
            continuation += 1
    places, tokens, continuations = np.array(sorted(wanted), dtype=np.int64).T
    return Reads(places, tokens, continuations, continuation)


def float32_head(head: Any) -> Head:
    """Take a plain matrix in float32; any other head (a quantized one) keeps its own arithmetic."""
    if type(head) is not nn.Linear:
        return lambda hidden: head(hidden).float()
    weight = head.weight.float()
    bias = None if getattr(head, "bias", None) is None else head.bias.float()
    return lambda hidden: nn.functional.linear(hidden.float(), weight, bias)


def read(logits_of: Head, hidden: Tensor, reads: Reads) -> tuple[np.ndarray, np.ndarray]:
    """Return the log-probability of each token (N,), and each place's most probable token (R,)."""
    num_places = hidden.shape[0]
    logprobs = np.empty(len(reads.places))
    best = np.empty(num_places, dtype=np.int64)
    for start in range(0, num_places, _ROWS):
        rows = hidden[start : start + _ROWS]
        num_rows = rows.shape[0]
        if num_rows < _ROWS:
            rows = torch.cat([rows, rows.new_zeros(_ROWS - num_rows, rows.shape[1])])
        logits = logits_of(rows)  # (_ROWS, V)
        first, last = np.searchsorted(reads.places, [start, start + _ROWS])
        place = torch.from_numpy(reads.places[first:last] - start).to(hidden.device)
        token = torch.from_numpy(reads.tokens[first:last]).to(hidden.device)
        chosen = logits[place, token] - torch.logsumexp(logits, dim=-1)[place]
        logprobs[first:last] = chosen.cpu().numpy()
        best[start : start + num_rows] = logits[:num_rows].argmax(dim=-1).cpu().numpy()
    return logprobs, best
