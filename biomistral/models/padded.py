"""Rows of requests for any causal model: padded batches behind one shared beginning.

The tokens that all requests begin with are run once, and their keys and values are lent to every
batch. What is left of a request is one row: the rest of its prompt (the trunk) and behind it the
continuations (the branches), each of which sees the trunk and itself only, by an attention mask.
Models that ``packed`` knows are run there, faster. Knows nothing about heads and probabilities.

Shapes: B rows, T tokens in the longest row, S shared tokens, R positions read, H hidden width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from biomistral.errors import ModelError
from biomistral.models.continuations import Encoded, shared_length
from biomistral.models.reading import Reads, reads_of

# Fewer shared tokens than this cost more (a mask in place of the causal kernel) than they save.
_LEAST_SHARED_TOKENS = 16


@dataclass(slots=True)
class _Batch:
    """Rows of one forward pass, and the places to read from it."""

    tokens: Tensor  # (B, T), 0 where a row is padded
    positions: Tensor  # (B, T) or (1, T), in the sequence a token belongs to
    branches: Tensor | None  # (B, T): 0 trunk, 1.. continuations, -1 padding; None: trunks only
    places: Tensor  # (2, R): row and column


def run_padded(
    model: Any, encoded: Sequence[Encoded], batch_tokens: int
) -> Iterator[tuple[list[int], Tensor, Reads, int]]:
    """Run requests in batches of at most ``batch_tokens`` tokens, padding included.

    Yields for each batch the indices of its requests, what the head gets at the places that are
    read (R, H), what is to be read there, and the number of tokens that went through the model.
    """
    shared = _shared_tokens(encoded)
    prefix = _run_prefix(model, encoded[0].trunk[:shared]) if shared else None
    extra = shared
    for indices in _batches(encoded, shared, batch_tokens):
        items = [encoded[index] for index in indices]
        batch = _lay_out(items, shared)
        yield (
            indices,
            _hidden(model, batch, prefix, shared),
            reads_of(items),
            batch.tokens.numel() + extra,
        )
        extra = 0


def _shared_tokens(encoded: Sequence[Encoded]) -> int:
    """Number of tokens to run once for all; at least one of each trunk is left to read from."""
    trunks = [item.trunk for item in encoded]
    shared = min(shared_length(trunks), min(map(len, trunks)) - 1)
    return shared if shared >= _LEAST_SHARED_TOKENS else 0


def _row_length(item: Encoded, shared: int) -> int:
    # The last token of a continuation is scored but never read from.
    return len(item.trunk) - shared + sum(len(tail) - 1 for tail in item.tails)


def _batches(encoded: Sequence[Encoded], shared: int, batch_tokens: int) -> Iterator[list[int]]:
    """Cut the requests, longest first, into batches of at most ``batch_tokens`` with padding."""
    lengths = [_row_length(item, shared) for item in encoded]
    order = sorted(range(len(encoded)), key=lambda index: -lengths[index])
    start = 0
    while start < len(order):
        num_rows = max(1, batch_tokens // lengths[order[start]])
        yield order[start : start + num_rows]
        start += num_rows


def _lay_out(items: Sequence[Encoded], shared: int) -> _Batch:
    """Make the tensors of one batch from its requests."""
    num_columns = max(_row_length(item, shared) for item in items)
    tokens = np.zeros((len(items), num_columns), dtype=np.int64)
    positions = np.zeros_like(tokens)
    branches = np.full_like(tokens, -1)
    places: list[tuple[int, int]] = []
    for row, item in enumerate(items):
        own = item.row(shared)
        length = len(own.tokens)
        tokens[row, :length] = own.tokens
        positions[row, :length] = own.positions
        branches[row, :length] = own.branches
        places += [(row, column) for column in own.places]
    branching = bool((branches > 0).any())
    straight = torch.arange(shared, shared + num_columns)[None]
    return _Batch(
        tokens=torch.from_numpy(tokens),
        positions=torch.from_numpy(positions) if branching else straight,
        branches=torch.from_numpy(branches) if branching else None,
        places=torch.tensor(places).T,
    )


# --- running --------------------------------------------------------------------------------------


class _LentLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """One layer's keys and values of the shared tokens, put before those of every batch.

    Unlike its parent it keeps nothing of a batch, so that one copy serves all of them.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values
        self.lent = (keys, values)  # each (1, heads, S, head width)

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        *args: Any,  # noqa: ARG002 - of the parent
        **kwargs: Any,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor]:
        num_rows = key_states.shape[0]
        keys, values = (lent.expand(num_rows, -1, -1, -1) for lent in self.lent)
        return torch.cat([keys, key_states], dim=2), torch.cat([values, value_states], dim=2)


def _run_prefix(model: Any, tokens: list[int]) -> Cache:
    """Run the shared tokens and return their keys and values, ready to be lent."""
    # Made without the config: a sliding window would throw away keys that a mask must hide instead.
    cache = DynamicCache()
    ids = torch.tensor([tokens], device=model.device)
    model.get_decoder()(input_ids=ids, past_key_values=cache, use_cache=True)
    layers: Any = cache.layers
    return Cache(layers=[_LentLayer(layer.keys, layer.values) for layer in layers])


def _hidden(model: Any, batch: _Batch, prefix: Cache | None, shared: int) -> Tensor:
    """Run a batch and return what the output head gets at the places to read: (R, H)."""
    device = model.device
    mask = None
    if prefix is not None or batch.branches is not None:
        dtype = model.dtype
        mask = _mask(batch, shared, _window(model.config, batch), dtype).to(device)
    hidden: Tensor = model.get_decoder()(
        input_ids=batch.tokens.to(device),
        attention_mask=mask,
        position_ids=batch.positions.to(device),
        past_key_values=prefix,
        use_cache=False,
    ).last_hidden_state  # (B, T, H)
    rows, columns = batch.places.to(device)
    return hidden[rows, columns]


def _mask(batch: _Batch, shared: int, window: int | None, dtype: torch.dtype) -> Tensor:
    """Return what is added to attention scores: (B or 1, 1, T, S + T), 0 or the lowest number.

    A token sees the shared tokens, the trunk of its row and its own branch, up to itself; with a
    sliding window, only those less than ``window`` positions back.
    """
    num_columns = batch.tokens.shape[1]
    seen = torch.ones(num_columns, num_columns, dtype=torch.bool).tril()[None]
    if batch.branches is not None:
        own = batch.branches[:, :, None] == batch.branches[:, None, :]
        seen = seen & (own | (batch.branches == 0)[:, None, :])
    seen = torch.cat([seen.new_ones(seen.shape[0], num_columns, shared), seen], dim=2)
    if window is not None:
        before = torch.arange(shared).expand(batch.positions.shape[0], -1)
        of_keys = torch.cat([before, batch.positions], dim=1)
        seen = seen & (batch.positions[:, :, None] - of_keys[:, None, :] < window)
    lowest = torch.finfo(dtype).min
    return torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, lowest)[:, None]


def _window(config: Any, batch: _Batch) -> int | None:
    """Return the model's sliding window if a row of this batch is longer than it."""
    window: int | None = getattr(config, "sliding_window", None)
    if window is None or int(batch.positions.max()) < window:
        return None
    if len(set(getattr(config, "layer_types", None) or [])) > 1:
        raise ModelError(
            f"a prompt is longer than the model's sliding window of {window} tokens, which only "
            "some of its layers have; such models are scored up to their window: use fewer shots"
        )
    return window
