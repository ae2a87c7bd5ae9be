"""Run sequences through a model token by token, with keys and values kept for each of them.

``decoder_of(model)`` gives one of two, with the same methods:

    PackedDecoder   models built like Mistral, whose modules are called one by one: the next tokens of
                    many sequences go through each matrix together
    PlainDecoder    any other causal model of Transformers, one sequence after the other

On a CPU what ``PackedDecoder`` computes for a sequence does not depend on which others are run with
it, to the last bit: matrix products over the next tokens always have the same number of rows, a
prompt is run in pieces at fixed places, and attention is computed for one sequence at a time. On a
GPU that holds up to rounding. Knows nothing about texts, sampling, or when a sequence ends.

Shapes: B sequences, T tokens, P tokens before them, H hidden width, D head width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import DynamicCache

from biomistral.models.fused import gated, normalized, turned
from biomistral.models.head import head_logits
from biomistral.models.hybrid import HybridLinear
from biomistral.models.packed import is_supported

# A prompt is run in pieces that start at multiples of this. On a CPU 256 rows are as fast a token
# as 512 (measured), and others wait for a piece to end; a GPU wants more.
_PIECE_ON_CPU = 256
_PIECE_ON_GPU = 1024
# Rows of a matrix product over next tokens: up to here they cost what one costs, which is reading
# the matrix. On one core with matrix units 16 rows took 1.07 times as long as one, 32 1.17 times.
_ROWS = 16


@dataclass(slots=True)
class PackedCache:
    """Keys and values of one sequence."""

    layers: list[Tensor]  # each (2, heads, capacity, D)
    length: int = 0  # tokens that are in it
    # Of these, so many were run in whole pieces of a prompt: the same bits for whoever begins alike.
    whole: int = 0


@dataclass(slots=True)
class PlainCache:
    """The same for any model, as Transformers keeps it."""

    cache: Any
    length: int = 0
    whole: int = 0  # nothing is lent to others


Cache = PackedCache | PlainCache


def decoder_of(model: Any) -> PackedDecoder | PlainDecoder:
    """Return what runs this model."""
    return PackedDecoder(model) if is_supported(model) else PlainDecoder(model)


@dataclass(frozen=True, slots=True)
class _Part:
    """Tokens of one sequence within the rows that are run together."""

    cache: PackedCache
    start: int
    stop: int
    mask: Tensor | None = None  # (heads that share keys * T, P + T); None: all are seen
    first: int = 0  # tokens before this one are out of the sliding window

    @property
    def end(self) -> int:
        """Tokens of the sequence when these are in."""
        return self.cache.length + self.stop - self.start


class PackedDecoder:
    """Runs models built like Mistral."""

    def __init__(self, model: Any) -> None:
        self._decoder = model.get_decoder()
        self._head = model.get_output_embeddings()
        norm = self._decoder.norm.weight  # the embedding may be stored in another type
        self._dtype, self._device = norm.dtype, norm.device
        self._is_cpu = self._device.type == "cpu"
        modules = list(self._decoder.modules())
        # LLM.int8 looks through all rows of a product for inputs that it does not round.
        is_mixed = any(type(module).__name__ == "Linear8bitLt" for module in modules)
        self._rows = 1 if is_mixed else _ROWS
        # Hybrid layers compute each row by itself, and a padded row would cost as much as any.
        self._is_padded = self._is_cpu and any(
            hasattr(each, "in_features") and not isinstance(each, HybridLinear) for each in modules
        )
        config = model.config
        attention = self._decoder.layers[0].self_attn
        self._head_width: int = attention.head_dim
        self._scaling: float = attention.scaling
        self._num_heads: int = config.num_key_value_heads
        self._num_sharing: int = config.num_attention_heads // self._num_heads
        self._window: int | None = _sliding_window(config)
        self.piece_tokens = _PIECE_ON_CPU if self._is_cpu else _PIECE_ON_GPU
        self.bytes_per_token: int = (
            2 * self._num_heads * self._head_width * len(self._decoder.layers)
        ) * self._dtype.itemsize

    def new_cache(self, capacity: int, like: Cache | None = None, length: int = 0) -> PackedCache:
        """Return room for ``capacity`` tokens, the first ``length`` taken over from another."""
        shape = (2, self._num_heads, capacity, self._head_width)
        layers = [
            torch.empty(shape, dtype=self._dtype, device=self._device) for _ in self._decoder.layers
        ]
        if like is not None and length:
            assert isinstance(like, PackedCache), "caches of one decoder are of one kind"
            for mine, theirs in zip(layers, like.layers, strict=True):
                mine[:, :, :length] = theirs[:, :, :length]
        return PackedCache(layers, length, length)

    def grow(self, cache: Cache, capacity: int) -> None:
        """Give a cache room for ``capacity`` tokens, layer by layer."""
        assert isinstance(cache, PackedCache), "caches of one decoder are of one kind"
        for index, layer in enumerate(cache.layers):
            larger = layer.new_empty(2, self._num_heads, capacity, self._head_width)
            larger[:, :, : cache.length] = layer[:, :, : cache.length]
            cache.layers[index] = larger

    def extend(self, cache: Cache, tokens: Sequence[int], *, wanted: bool) -> Tensor | None:
        """Run the next piece of a prompt; return the logits (1, V) behind it if they are wanted."""
        assert isinstance(cache, PackedCache), "caches of one decoder are of one kind"
        before, length = cache.length, len(tokens)
        part = _Part(cache, 0, length, self._mask(before, length))
        hidden = self._run(list(tokens), list(range(before, before + length)), [part])
        cache.length += length
        if before == cache.whole and length == self.piece_tokens:
            cache.whole = cache.length
        return head_logits(self._head, hidden[-1:]) if wanted else None

    def advance(self, caches: Sequence[Cache], tokens: Sequence[int]) -> Tensor:
        """Run one token of each sequence; return the logits (B, V) behind them."""
        step = self._rows if self._is_cpu else len(tokens)
        parts = [
            self._advance(caches[start : start + step], tokens[start : start + step])
            for start in range(0, len(tokens), step)
        ]
        return torch.cat(parts)

    def _advance(self, caches: Sequence[Cache], tokens: Sequence[int]) -> Tensor:
        parts = []
        for index, cache in enumerate(caches):
            assert isinstance(cache, PackedCache), "caches of one decoder are of one kind"
            first = max(0, cache.length + 1 - self._window) if self._window else 0
            parts.append(_Part(cache, index, index + 1, None, first))
        padding = [0] * (self._rows - len(tokens) if self._is_padded else 0)
        positions = [cache.length for cache in caches]
        hidden = self._run([*tokens, *padding], [*positions, *padding], parts)
        for cache in caches:
            cache.length += 1
        return head_logits(self._head, hidden[: len(tokens)])

    def _run(self, tokens: list[int], positions: list[int], parts: Sequence[_Part]) -> Tensor:
        """Run rows of tokens; put keys and values into the caches; return (T, H)."""
        hidden = self._decoder.embed_tokens(torch.tensor(tokens, device=self._device))
        # In float32, which the module takes from its first argument.
        turns = self._decoder.rotary_emb(
            hidden[None, :1].float(), torch.tensor(positions, device=self._device)[None]
        )
        cosine, sine = (turn[0].contiguous() for turn in turns)  # each (T, D)
        for index, layer in enumerate(self._decoder.layers):
            attention = layer.self_attn
            normed = normalized(layer.input_layernorm, hidden)
            queries, keys, values = (
                project(normed).unflatten(-1, (-1, self._head_width))  # (T, heads, D)
                for project in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            queries, keys = turned(queries, cosine, sine), turned(keys, cosine, sine)
            mixed = torch.zeros_like(queries)
            for part in parts:
                rows = slice(part.start, part.stop)
                mixed[rows] = self._attend(index, part, queries[rows], keys[rows], values[rows])
            hidden = hidden + attention.o_proj(mixed.flatten(1))
            hidden = hidden + gated(layer.mlp, normalized(layer.post_attention_layernorm, hidden))
        normed = normalized(self._decoder.norm, hidden)
        return normed

    def _attend(
        self, index: int, part: _Part, queries: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        """Put keys and values into a cache; return what queries (T, heads, D) find there."""
        layer = part.cache.layers[index]
        layer[0, :, part.cache.length : part.end] = keys.transpose(0, 1)
        layer[1, :, part.cache.length : part.end] = values.transpose(0, 1)
        seen = layer[:, :, part.first : part.end]
        # Heads that share keys become further queries of one head.
        groups = queries.transpose(0, 1).reshape(self._num_heads, -1, self._head_width)
        found = F.scaled_dot_product_attention(
            groups[None], seen[:1], seen[1:], attn_mask=part.mask, scale=self._scaling
        )
        return found.view(-1, queries.shape[0], self._head_width).transpose(0, 1)

    def _mask(self, before: int, length: int) -> Tensor | None:
        """Return what is added to the scores of a piece: 0 or minus infinity."""
        if length == 1 and (self._window is None or before < self._window):
            return None
        seen = torch.ones(length, before + length, dtype=torch.bool).tril(before)
        if self._window is not None:
            seen = seen.triu(before - self._window + 1)
        mask = torch.zeros(seen.shape, dtype=self._dtype)
        mask = mask.masked_fill_(~seen, float("-inf")).to(self._device)
        return mask.repeat(self._num_sharing, 1)


class PlainDecoder:
    """Runs any causal model, one sequence after the other."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.piece_tokens = _PIECE_ON_CPU if model.device.type == "cpu" else _PIECE_ON_GPU
        self.bytes_per_token = 0  # not known

    def new_cache(self, capacity: int, like: Cache | None = None, length: int = 0) -> PlainCache:
        """Return an empty cache; nothing is taken over."""
        del capacity, like
        assert not length, "nothing of these caches is lent"
        return PlainCache(DynamicCache(config=self._model.config))

    def grow(self, cache: Cache, capacity: int) -> None:
        """Do nothing: these caches grow by themselves."""

    def extend(self, cache: Cache, tokens: Sequence[int], *, wanted: bool) -> Tensor | None:
        """Run the next piece of a prompt; return the logits (1, V) behind it if they are wanted."""
        logits = self._run(cache, list(tokens))
        return logits if wanted else None

    def advance(self, caches: Sequence[Cache], tokens: Sequence[int]) -> Tensor:
        """Run one token of each sequence; return the logits (B, V) behind them."""
        rows = [self._run(cache, [token]) for cache, token in zip(caches, tokens, strict=True)]
        return torch.cat(rows)

    def _run(self, cache: Cache, tokens: list[int]) -> Tensor:
        assert isinstance(cache, PlainCache), "caches of one decoder are of one kind"
        found = self._model(
            input_ids=torch.tensor([tokens], device=self._model.device),
            past_key_values=cache.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache.length += len(tokens)
        logits: Tensor = found.logits[:, -1]
        return logits.float()


def _sliding_window(config: Any) -> int | None:
    kinds = set(getattr(config, "layer_types", None) or [])
    if config.model_type == "mistral" or kinds == {"sliding_attention"}:
        window: int | None = getattr(config, "sliding_window", None)
        return window
    return None
