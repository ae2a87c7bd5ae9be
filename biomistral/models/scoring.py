"""Log-probabilities of continuations: the engine under every benchmark number.

The contract. Given a model, an encoder of its tokenizer's texts and a list of requests, return for
each request one number per continuation, in order, all natural logarithms:

    letter   log P(letter | prompt) over the whole vocabulary, read at one position
    cloze    log P(continuation | prompt), summed over its tokens, per UTF-8 byte of its text

Worked example. The prompt ``Answer:(`` is the tokens ``<s> Answer : (`` and the letters A and B
are one token each. The model reads the four tokens once; at the fourth, the logits' log-softmax
holds -1.9 for ``A`` and -2.3 for ``B``: the answer is ``(-1.9, -2.3)``. For the prompt
``Answer:`` and the continuations `` bark`` (one token, 5 bytes) and `` cold water`` (two tokens,
11 bytes) the row ``<s> Answer : cold`` is read. Its third position holds -4.0 for ``bark`` and
-2.0 for ``cold``, its fourth -2.7 for ``water``: the answer is ``(-4.0/5, (-2.0-2.7)/11)``.

How. The tokens that all requests of a call begin with (the few-shot examples of a task) are run
once, and their keys and values are lent to every batch. What is left of a request is one row: the
rest of its prompt (the trunk) and behind it the continuations (the branches), each of which sees
the trunk and itself only. Only positions that are read go through the output head, and both head
and softmax are taken in float32: bfloat16 has so few logits that the letters of a question would
often tie. Hand over requests that share a long beginning in one call.

Where a prompt ends and a continuation begins is decided in ``continuations``. Knows nothing about
tasks, choices, right answers or files.

Shapes: B rows, T tokens in the longest row, S shared tokens, R positions read, V vocabulary,
H hidden width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from biomistral.errors import ModelError
from biomistral.models.continuations import Encoded, TextEncoder, encode_requests, shared_length
from biomistral.progress import Progress, ignore
from biomistral.records import Request

# Fewer shared tokens than this cost more (a mask in place of the causal kernel) than they save.
_LEAST_SHARED_TOKENS = 16
# Larger batches are slower on a CPU, where they fall out of the caches: measured on a model of 4
# million parameters, 16,384 tokens took 20 to 50 % more processor time than 2,048.
_MOST_TOKENS_ON_CPU = 2048
# Most logits at one time in float32: 64 MB.
_LOGITS_AT_ONCE = 2**24
_Head = Callable[[Tensor], Tensor]  # (R, H) to float32 logits (R, V)
# Called after each batch with the indices of its requests, their log-probabilities and their tops.
Keep = Callable[[Sequence[int], Sequence[tuple[float, ...]], Sequence[str]], None]


@dataclass(frozen=True, slots=True)
class Scored:
    """What a call of ``score_requests`` found, and what it cost."""

    logprobs: list[tuple[float, ...]]  # per request, per continuation
    num_prompt_tokens: int  # of all prompts, as if each were read by itself
    num_forward_tokens: int  # that went through the model, padding included
    # Per request: the most probable token of the whole vocabulary, as text; empty if not asked for.
    tops: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Batch:
    """Rows of one forward pass, and the places to read from it.

    ``reads`` has a column per token to score: place (index into ``places``), token id, and the
    number of its continuation in the batch.
    """

    tokens: Tensor  # (B, T), 0 where a row is padded
    positions: Tensor  # (B, T) or (1, T), in the sequence a token belongs to
    branches: Tensor | None  # (B, T): 0 trunk, 1.. continuations, -1 padding; None: trunks only
    places: Tensor  # (2, R): row and column
    reads: np.ndarray  # (3, number of tokens), sorted by place
    num_continuations: int


@torch.inference_mode()
def score_requests(
    model: Any,
    encoder: TextEncoder,
    requests: Sequence[Request],
    *,
    batch_tokens: int = 16_384,
    progress: Progress = ignore,
    keep: Keep | None = None,
) -> Scored:
    """Score requests; neither their order nor ``batch_tokens`` changes a result (but by rounding).

    ``batch_tokens`` bounds the tokens of a forward pass, padding included and the shared beginning
    apart; a bfloat16 model takes a float32 copy of its head besides (0.5 GB for Mistral 7B). Raises
    ``ModelError`` if a prompt does not fit into the model's context, if a letter is not one token,
    if the tokenizer is of another model, or if the model gives no finite number.
    """
    if not requests:
        return Scored([], 0, 0)
    encoded = encode_requests(encoder, requests)
    _check_fit(model, requests, encoded)
    shared = _shared_tokens(encoded)
    prefix = _run_prefix(model, encoded[0].trunk[:shared]) if shared else None
    if model.device.type == "cpu":
        batch_tokens = min(batch_tokens, _MOST_TOKENS_ON_CPU)
    logits_of = _float32_head(model.get_output_embeddings())
    results: list[tuple[float, ...]] = [()] * len(requests)
    num_forward_tokens = shared
    done = 0
    for indices in _batches(encoded, shared, batch_tokens):
        batch = _lay_out([encoded[index] for index in indices], shared)
        logprobs = _read(logits_of, _hidden(model, batch, prefix, shared), batch.reads)
        sums = np.bincount(batch.reads[2], logprobs, minlength=batch.num_continuations)
        for index, row in zip(indices, _per_request(encoded, indices, sums), strict=True):
            results[index] = _finish(requests[index], row)
        num_forward_tokens += batch.tokens.numel()
        if keep is not None:
            keep(indices, [results[index] for index in indices], [""] * len(indices))
        done += len(indices)
        progress(done, len(requests), "questions")
    num_prompt_tokens = sum(item.num_prompt_tokens for item in encoded)
    return Scored(results, num_prompt_tokens, num_forward_tokens, [""] * len(requests))


# --- planning -------------------------------------------------------------------------------------


def _check_fit(model: Any, requests: Sequence[Request], encoded: Sequence[Encoded]) -> None:
    """Refuse prompts longer than the context, ids past the embedding, and heads unlike a matrix."""
    for name in ("final_logit_softcapping", "logit_scale", "logits_scaling"):
        if getattr(model.config, name, None) not in {None, 1.0}:
            raise ModelError(
                f"the model's logits are bent by {name}, which scoring does not do; "
                "use a model of the Mistral or Llama kind"
            )
    limit = getattr(model.config, "max_position_embeddings", None)
    num_embeddings = model.get_input_embeddings().weight.shape[0]
    for request, item in zip(requests, encoded, strict=True):
        where = f"question {request.question_id!r} of {request.task} ({request.language})"
        num_tokens = len(item.trunk) + max(map(len, item.tails)) - 1
        if limit is not None and num_tokens > limit:
            raise ModelError(
                f"{where}: its prompt with {request.shots} worked examples and the longest choice "
                f"is {num_tokens} tokens, the model's context is {limit}; use fewer shots"
            )
        largest = max(map(max, [item.trunk, *item.tails]))
        if largest >= num_embeddings:
            raise ModelError(
                f"{where}: the tokenizer gives the id {largest}, the model's embedding ends at "
                f"{num_embeddings - 1}; use the tokenizer that belongs to this model"
            )


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
    reads: list[tuple[int, int, int]] = []
    continuation = 0
    for row, item in enumerate(items):
        column = len(item.trunk) - shared
        tokens[row, :column] = item.trunk[shared:]
        positions[row, :column] = np.arange(shared, len(item.trunk))
        branches[row, :column] = 0
        end_of_trunk = len(places)
        places.append((row, column - 1))
        for branch, tail in enumerate(item.tails, start=1):
            reads.append((end_of_trunk, tail[0], continuation))
            stop = column + len(tail) - 1
            tokens[row, column:stop] = tail[:-1]
            positions[row, column:stop] = np.arange(
                len(item.trunk), len(item.trunk) + stop - column
            )
            branches[row, column:stop] = branch
            for token in tail[1:]:
                reads.append((len(places), token, continuation))
                places.append((row, column))
                column += 1
            continuation += 1
    branching = bool((branches > 0).any())
    straight = torch.arange(shared, shared + num_columns)[None]
    by_place = np.array(sorted(reads), dtype=np.int64).T
    return _Batch(
        tokens=torch.from_numpy(tokens),
        positions=torch.from_numpy(positions) if branching else straight,
        branches=torch.from_numpy(branches) if branching else None,
        places=torch.tensor(places).T,
        reads=by_place,
        num_continuations=continuation,
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
        dtype = model.get_input_embeddings().weight.dtype
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


def _float32_head(head: Any) -> _Head:
    """Take a plain matrix in float32; any other head (a quantized one) keeps its own arithmetic."""
    if type(head) is not nn.Linear:
        return lambda hidden: head(hidden).float()
    weight = head.weight.float()
    bias = None if getattr(head, "bias", None) is None else head.bias.float()
    return lambda hidden: nn.functional.linear(hidden.float(), weight, bias)


def _read(logits_of: _Head, hidden: Tensor, reads: np.ndarray) -> np.ndarray:
    """Return the log-probability of each token to score; ``hidden`` is (R, H)."""
    num_places = max(1, _LOGITS_AT_ONCE // logits_of(hidden[:1]).shape[-1])
    logprobs = np.empty(reads.shape[1])
    for start in range(0, hidden.shape[0], num_places):
        logits = logits_of(hidden[start : start + num_places])  # (part of R, V)
        first, last = np.searchsorted(reads[0], [start, start + num_places])
        place, token = torch.from_numpy(reads[:2, first:last]).to(hidden.device)
        place = place - start
        chosen = logits[place, token] - torch.logsumexp(logits, dim=-1)[place]
        logprobs[first:last] = chosen.cpu().numpy()
    return logprobs


# --- results --------------------------------------------------------------------------------------


def _per_request(
    encoded: Sequence[Encoded], indices: Sequence[int], sums: np.ndarray
) -> Iterator[list[float]]:
    start = 0
    for index in indices:
        stop = start + len(encoded[index].tails)
        yield sums[start:stop].tolist()
        start = stop


def _finish(request: Request, sums: list[float]) -> tuple[float, ...]:
    """Divide by bytes if that is the scoring; refuse what is no number."""
    if not np.isfinite(sums).all():
        raise ModelError(
            f"question {request.question_id!r} of {request.task} ({request.language}): the model "
            f"gave the log-probabilities {sums}; its weights are broken, or it was run in too low "
            "a precision: try precision: float32"
        )
    if request.scoring == "letter":
        return tuple(sums)
    num_bytes = [len(text.encode()) for text in request.continuations]
    return tuple(total / count for total, count in zip(sums, num_bytes, strict=True))
