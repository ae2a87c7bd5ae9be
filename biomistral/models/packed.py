"""Many requests in one row without padding, for models built like Mistral: the fast engine.

What prompts share (``prefixes``) is run once, level by level; its keys and values stay in one buffer
per layer, in which the path from the root to the present node lies contiguously. The rest of each
request is put behind it, computed, and overwritten by the next. All matrix products run over tiles
of a fixed number of rows that requests fill without gaps, and attention over one request at a time:
so the shapes, and with them the rounding, of what is computed for a request do not depend on its
company, and its log-probabilities are the same bits in any batch and order. In the last layer only
what is read goes on after keys and values. Attention is that of ``attention`` where a processor has
matrix units and a token sees all before it, else PyTorch's.

The modules of the model are called one by one, so quantized layers work; how they are wired is that
of ``MistralModel`` in Transformers 5. Knows nothing about heads and probabilities.

Shapes: T tokens of a row, P tokens before them, H hidden width, D head width, R positions read.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from biomistral.models import attention, varlen
from biomistral.models.continuations import Encoded, Row
from biomistral.models.fused import add_projected, inner, normalized, project_into, turned
from biomistral.models.prefixes import Node, shared_beginnings
from biomistral.models.reading import Reads, reads_of

# Models whose layers are wired like Mistral's, without anything in between.
_KINDS = ("mistral", "llama", "qwen2")
# Rows of a matrix product. 128 are slower; 256, 512 and 1024 are alike within the noise, for a model
# of width 768 on one core with matrix units (measured). Fewer rows are less padding.
_TILE = 512
_READ_TILE = 32  # the same for the last layer, which goes on with few rows


def is_supported(model: Any) -> bool:
    """Whether this model's layers are of the kind that is computed here."""
    config = model.config
    if config.model_type not in _KINDS:
        return False
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return kinds <= {"full_attention"} or (
        kinds == {"sliding_attention"} and config.sliding_window is not None
    )


def run_packed(
    model: Any, encoded: Sequence[Encoded], batch_tokens: int
) -> Iterator[tuple[list[int], Tensor, Reads, int]]:
    """Run requests in rows of about ``batch_tokens`` tokens (at least one request).

    Yields for each row the indices of its requests, what the head gets at the places that are read
    (R, H), what is to be read there, and the number of tokens that went through the model.
    """
    decoder = _Decoder(model, max(len(item.trunk) + sum(map(len, item.tails)) for item in encoded))
    trunks = [item.trunk for item in encoded]
    tree = shared_beginnings(trunks, least_saved=_TILE)
    for node in tree.walk():
        tokens = trunks[node.member][node.start : node.stop]
        num_tokens = len(tokens)
        if tokens:
            decoder.keep(tokens, node.start)
        for indices in _packs(node, encoded, batch_tokens):
            items = [encoded[index] for index in indices]
            rows = [item.row(node.stop) for item in items]
            num_tokens += sum(len(row.tokens) for row in rows)
            yield indices, decoder.read(rows, node.stop), reads_of(items), num_tokens
            num_tokens = 0


def _packs(node: Node, encoded: Sequence[Encoded], batch_tokens: int) -> Iterator[list[int]]:
    pack: list[int] = []
    room = batch_tokens
    for index in node.leaves:
        item = encoded[index]
        length = len(item.trunk) - node.stop + sum(len(tail) - 1 for tail in item.tails)
        if pack and length > room:
            yield pack
            pack, room = [], batch_tokens
        pack.append(index)
        room -= length
    if pack:
        yield pack


def _places(rows: Sequence[Row]) -> list[int]:
    """Return which tokens of a pack are read."""
    starts = itertools.accumulate((len(row.tokens) for row in rows), initial=0)
    return [start + place for start, row in zip(starts, rows, strict=False) for place in row.places]


@dataclass(frozen=True, slots=True)
class _Segment:
    """The rows of one request in a pack."""

    start: int
    stop: int
    places: list[int]  # within the pack
    # Where a token sees all before it, on processors for ``attention``: how many keys, (T,) int32.
    limits: Tensor | None
    mask: Tensor | None  # else what is added to attention scores: (heads that share keys, T, P + T)

    def of_read(self) -> _Segment:
        """Return the same with limits and mask of those rows only that are read."""
        rows = [place - self.start for place in self.places]
        limits = None if self.limits is None else self.limits[rows]
        mask = None if self.mask is None else self.mask[:, rows]
        return replace(self, limits=limits, mask=mask)


@dataclass(frozen=True, slots=True)
class _Pack:
    """What is run together: requests one by one, or all at once where ``varlen`` can do it."""

    segments: list[_Segment]
    layout: varlen.Layout | None
    places: list[int]  # that are read


class _Decoder:
    """The layers of a model, with keys and values of the tokens before those that are run."""

    def __init__(self, model: Any, capacity: int) -> None:
        self._decoder = model.get_decoder()
        self._config = model.config
        self._device = model.device
        self._tile = _TILE if model.device.type == "cpu" else 1 << 30
        first = self._decoder.layers[0].self_attn
        self._head_width: int = first.head_dim
        self._scaling: float = first.scaling
        num_heads = self._config.num_key_value_heads
        self._num_sharing: int = self._config.num_attention_heads // num_heads
        norm = self._decoder.norm.weight  # the embedding may be stored in another type
        self._dtype = norm.dtype
        self._path = [
            norm.new_empty(2, num_heads, capacity, self._head_width) for _ in self._decoder.layers
        ]
        self._has_units = attention.is_available(self._path[0])

    def keep(self, tokens: list[int], before: int) -> None:
        """Run tokens that come after the first ``before`` of the path, and put them on it."""
        row = Row(tokens, list(range(before, before + len(tokens))), [0] * len(tokens), [])
        self._run([row], before)

    def read(self, rows: Sequence[Row], before: int) -> Tensor:
        """Run rows that come after the first ``before`` tokens of the path; return (R, H)."""
        hidden = self._run(rows, before)
        assert hidden is not None
        return hidden

    def _run(self, rows: Sequence[Row], before: int) -> Tensor | None:
        device = self._device
        tokens = torch.tensor([token for row in rows for token in row.tokens], device=device)
        positions = torch.tensor([place for row in rows for place in row.positions], device=device)
        num_tokens = len(tokens)
        # What is kept is run by itself, so its own length is as good as a fixed one.
        is_kept = not any(row.places for row in rows)
        layout = varlen.lay_out(rows, device, is_shared=is_kept) if self._is_at_once(rows) else None
        is_whole = is_kept or layout is not None or device.type != "cpu"
        tile = min(self._tile, num_tokens) if is_whole else self._tile
        padding = 0 if is_whole else -num_tokens % tile
        hidden = self._decoder.embed_tokens(F.pad(tokens, (0, padding)))  # (T, H), padded
        # In float32, which the module takes from its first argument.
        turns = self._decoder.rotary_emb(
            hidden[None, :1].float(), F.pad(positions, (0, padding))[None]
        )
        cosine, sine = (turn[0].contiguous() for turn in turns)  # each (T, D)
        pack = _Pack([] if layout else self._segments(rows, before), layout, _places(rows))
        tiles = [slice(start, start + tile) for start in range(0, num_tokens + padding, tile)]
        last = len(self._decoder.layers) - 1
        for index, layer in enumerate(self._decoder.layers):
            if index == last:
                return self._last_layer(layer, hidden, tiles, pack, (cosine, sine), before)
            queries, keys, values = self._project(layer, hidden, tiles, (cosine, sine))
            if layout is not None:
                mixed = self._attend_at_once(index, queries, keys, values, layout, before)
            else:
                mixed = torch.empty_like(queries)  # (T, heads, D)
            mixed[num_tokens:] = 0  # padding
            for segment in pack.segments:
                part = slice(segment.start, segment.stop)
                mixed[part] = self._attend(
                    index, queries[part], keys[part], values[part], segment, before
                )
            for each in tiles:
                self._finish(layer, hidden[each], mixed[each])
        raise AssertionError("a model without layers")

    def _segments(self, rows: Sequence[Row], before: int) -> list[_Segment]:
        segments = []
        start = 0
        plain: dict[int, Tensor] = {}  # masks of rows without branches, by their length
        for row in rows:
            length = len(row.tokens)
            limits = mask = None
            if self._has_units and not any(row.branches) and not self._is_past_window(row):
                limits = torch.arange(before + 1, before + length + 1, dtype=torch.int32)
            else:
                mask = plain[length] if length in plain else self._mask(row, before)
                if not any(row.branches):
                    plain[length] = mask
            places = [start + place for place in row.places]
            segments.append(_Segment(start, start + length, places, limits, mask))
            start += length
        return segments

    def _mask(self, row: Row, before: int) -> Tensor:
        """Return 0 or minus infinity for each score: (heads that share keys, T, P + T)."""
        num_tokens = len(row.tokens)
        seen = torch.ones(num_tokens, before + num_tokens, dtype=torch.bool).tril(before)
        if any(row.branches):
            branches = torch.tensor(row.branches)
            own = (branches[:, None] == branches) | (branches == 0)
            seen[:, before:] &= own
        if self._is_past_window(row):
            positions = torch.tensor(row.positions)
            of_keys = torch.cat([torch.arange(before), positions])
            seen &= positions[:, None] - of_keys < self._config.sliding_window
        mask = torch.zeros(seen.shape, dtype=self._dtype)
        mask = mask.masked_fill_(~seen, float("-inf")).to(self._device)
        return mask.repeat(self._num_sharing, 1, 1)

    def _is_past_window(self, row: Row) -> bool:
        """Whether a sliding window hides keys from some token of a row."""
        kinds = getattr(self._config, "layer_types", None) or ()
        is_sliding = self._config.model_type == "mistral" or "sliding_attention" in kinds
        window = self._config.sliding_window if is_sliding else None
        return window is not None and max(row.positions) >= window

    def _project(
        self, layer: Any, hidden: Tensor, tiles: Sequence[slice], turns: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of all rows: (T, heads, D) each."""
        own = layer.self_attn
        num_heads = self._config.num_key_value_heads
        queries, keys, values = (
            hidden.new_empty(hidden.shape[0], heads, self._head_width)
            for heads in (num_heads * self._num_sharing, num_heads, num_heads)
        )
        for tile in tiles:
            normed = normalized(layer.input_layernorm, hidden[tile])
            project_into(queries[tile].flatten(1), own.q_proj, normed)
            project_into(keys[tile].flatten(1), own.k_proj, normed)
            project_into(values[tile].flatten(1), own.v_proj, normed)
            for vectors in (queries[tile], keys[tile]):
                turned(vectors, turns[0][tile], turns[1][tile])
        return queries, keys, values

    def _attend(
        self,
        layer_index: int,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        segment: _Segment,
        before: int,
    ) -> Tensor:
        """Put keys and values behind the path; return what queries (Q, heads, D) find there."""
        num_tokens, num_queries = keys.shape[0], queries.shape[0]
        path = self._path[layer_index][:, :, : before + num_tokens]
        path[0, :, before:] = keys.transpose(0, 1)
        path[1, :, before:] = values.transpose(0, 1)
        if not num_queries:
            return queries
        if segment.limits is not None:
            return attention.attend(queries, self._path[layer_index], segment.limits, self._scaling)
        assert segment.mask is not None, "one of both is there"
        # Heads that share keys become further queries of one head: half as long again otherwise.
        groups = queries.transpose(0, 1).reshape(path.shape[1], -1, self._head_width)
        found = F.scaled_dot_product_attention(
            groups[None],
            path[:1],
            path[1:],
            attn_mask=segment.mask.flatten(0, 1),
            scale=self._scaling,
        )
        return found.view(-1, num_queries, self._head_width).transpose(0, 1)

    def _attend_at_once(
        self,
        layer_index: int,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        layout: varlen.Layout,
        before: int,
    ) -> Tensor:
        """Return what all queries (T, heads, D) find; put keys and values that are shared on the path."""
        path = self._path[layer_index].transpose(1, 2)  # (2, capacity, heads, D)
        shared = (path[0, :before], path[1, :before]) if before else None
        found = varlen.attend(queries, keys, values, shared, layout, self._scaling)
        if layout.is_shared:
            path[0, before : before + keys.shape[0]] = keys
            path[1, before : before + keys.shape[0]] = values
        return found

    def _is_at_once(self, rows: Sequence[Row]) -> bool:
        """Whether all rows can be attended to together: on a GPU, without a window in reach."""
        fits = not any(map(self._is_past_window, rows))
        return fits and varlen.is_available(self._path[0])

    def _finish(self, layer: Any, hidden: Tensor, mixed: Tensor) -> None:
        """Add attention and the feed-forward part of a layer to hidden states, in place."""
        add_projected(hidden, layer.self_attn.o_proj, mixed.flatten(1))
        normed = normalized(layer.post_attention_layernorm, hidden)
        add_projected(hidden, layer.mlp.down_proj, inner(layer.mlp, normed))

    def _last_layer(
        self,
        layer: Any,
        hidden: Tensor,
        tiles: Sequence[slice],
        pack: _Pack,
        turns: tuple[Tensor, Tensor],
        before: int,
    ) -> Tensor | None:
        """Make keys and values of all rows; go on with those that are read: (R, H)."""
        index = len(self._decoder.layers) - 1
        queries, keys, values = self._project(layer, hidden, tiles, turns)
        read: list[Tensor] = []
        if pack.layout is not None:
            found = self._attend_at_once(index, queries, keys, values, pack.layout, before)
            read.append(found[pack.places])
        for segment in pack.segments:
            part = slice(segment.start, segment.stop)
            read.append(
                self._attend(
                    index,
                    queries[segment.places],
                    keys[part],
                    values[part],
                    segment.of_read(),
                    before,
                )
            )
        if not pack.places:
            return None
        mixed = torch.cat(read)
        chosen = hidden[pack.places]
        num_places = len(pack.places)
        padding = -num_places % _READ_TILE
        chosen, mixed = F.pad(chosen, (0, 0, 0, padding)), F.pad(mixed, (0, 0, 0, 0, 0, padding))
        for start in range(0, num_places, _READ_TILE):
            tile = slice(start, start + _READ_TILE)
            self._finish(layer, chosen[tile], mixed[tile])
        normed: Tensor = self._decoder.norm(chosen[:num_places])
        return normed
