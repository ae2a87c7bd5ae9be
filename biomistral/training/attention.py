"""Attention of packed rows that never leaves a document, and never computes what it would mask.

Transformers keeps documents of a row apart with a dense mask over whole rows: all of the square is
computed and most of it thrown away. Here each document is a sequence of its own: variable-length
flash attention on CUDA, elsewhere plain causal attention over documents of similar length side by
side. ``keep_documents_apart`` makes a model use it, through the library's own registry.

A model that uses it leaks on no path: rows that come without ``documents`` are split where their
``position_ids`` restart, and masks, caches and padding masks are refused. Knows nothing about
losses or files.

Shapes: B rows, T tokens in a row, N = B x T tokens, H heads, D width of a head, P places (N and the
filling of shorter documents), K documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

from biomistral.errors import ModelError

NAME = "biomistral_documents"

# Documents down to this share of the longest beside them are filled up to it; shorter ones start a
# group of their own. The filling costs at most 1 / 0.8**2 of the work; a call costs 0.1 ms.
_SIMILAR_FRACTION = 0.8
_SHORT_TOKENS = 32  # so short that filling up to it costs less than another call


@dataclass(frozen=True)
class Documents:
    """Where the documents of a batch lie, and how they are laid out to be computed together.

    ``groups`` are (number of documents, length they are filled up to); one after the other they
    make the places. ``source`` is None where places and tokens are the same.
    """

    lengths: tuple[int, ...]  # of the documents, over the batch as one line
    groups: tuple[tuple[int, int], ...]
    ends: Tensor  # (K + 1,) int32, first 0
    source: Tensor | None  # (P,) token at each place; places that fill repeat the last token
    place: Tensor | None  # (N,) place of each token

    @property
    def longest_tokens(self) -> int:
        """Length of the longest document."""
        return max(self.lengths)

    def to(self, device: torch.device | str, **_: Any) -> Documents:
        """Return the same on another device, as ``Tensor.to``."""
        return replace(
            self,
            ends=self.ends.to(device, non_blocking=True),
            source=None if self.source is None else self.source.to(device, non_blocking=True),
            place=None if self.place is None else self.place.to(device, non_blocking=True),
        )


def lay_out(lengths: Sequence[int]) -> Documents:
    """Lay out documents of ``lengths`` tokens, which follow each other and fill whole rows."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    groups: list[list[int]] = []
    for index in order:
        longest = lengths[groups[-1][0]] if groups else 0
        is_similar = lengths[index] >= _SIMILAR_FRACTION * longest or longest <= _SHORT_TOKENS
        if groups and is_similar:
            groups[-1].append(index)
        else:
            groups.append([index])
    shape = tuple((len(group), lengths[group[0]]) for group in groups)
    given = torch.tensor(lengths)
    ends = F.pad(given.cumsum(0), (1, 0))
    is_in_place = order == sorted(order) and sum(n * width for n, width in shape) == int(ends[-1])
    if is_in_place:
        return Documents(tuple(lengths), shape, ends.int(), None, None)
    sources, first, start = [], torch.empty_like(given), 0
    for group, (number, width) in zip(groups, shape, strict=True):
        inside = torch.arange(width).minimum(given[group][:, None] - 1)  # (documents, width)
        sources.append((ends[group][:, None] + inside).flatten())
        first[group] = start + width * torch.arange(number)
        start += number * width
    place = torch.arange(int(ends[-1])) + (first - ends[:-1]).repeat_interleave(given)
    return Documents(tuple(lengths), shape, ends.int(), torch.cat(sources), place)


def documents_of_positions(positions: Tensor) -> Documents:
    """Documents of rows whose ``position_ids`` (B, T) start again at each one."""
    starts = torch.ones_like(positions, dtype=torch.bool)
    starts[:, 1:] = positions.diff(dim=1) != 1
    at = torch.nonzero(starts.flatten()).flatten().tolist()
    ends = [*at[1:], positions.numel()]
    return lay_out([end - start for start, end in zip(at, ends, strict=True)]).to(positions.device)


def keep_documents_apart(model: Any) -> None:
    """Make ``model`` attend inside documents only.

    Give it ``documents`` (``lay_out``) beside ``input_ids``, ``position_ids`` that restart at each
    document, ``use_cache=False`` and no ``attention_mask``. Raises ``ModelError`` if the library
    does not let this architecture's attention be replaced.
    """
    AttentionInterface.register(NAME, document_attention)
    try:
        model.set_attn_implementation(NAME)
    except (ValueError, AttributeError) as error:
        raise ModelError(
            f"training: the attention of {type(model).__name__} cannot be replaced ({error}), so "
            "documents in one row would see each other; use another model, or "
            "cross_document_attention: true"
        ) from error


# --- computing ------------------------------------------------------------------------------------


def document_attention(
    module: Any,  # noqa: ARG001 - of the interface
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    documents: Documents | None = None,
    position_ids: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Causal attention inside documents, in the form that Transformers calls.

    ``query`` is (B, H, T, D), ``key`` and ``value`` may have fewer heads; returns (B, T, H, D).
    """
    _refuse_leaks(query, key, attention_mask, others)
    rows, _, length, _ = query.shape
    if documents is None:
        documents = _found(position_ids, rows, length, query.device)
    assert sum(documents.lengths) == rows * length, "documents do not fill the rows"
    flat = [tensor.transpose(1, 2).flatten(0, 1) for tensor in (query, key, value)]  # (N, H, D)
    window = (
        sliding_window if sliding_window and sliding_window < documents.longest_tokens else None
    )
    compute = _by_varlen if _has_varlen(query, dropout) else _by_groups
    out = compute(*flat, documents=documents, scale=scaling, window=window, dropout=dropout)
    return out.view(rows, length, *out.shape[1:]), None


def _refuse_leaks(
    query: Tensor, key: Tensor, attention_mask: Tensor | None, others: dict[str, Any]
) -> None:
    problem = ""
    if attention_mask is not None:
        problem = "got an attention_mask, which says nothing about documents"
    elif query.shape[2] != key.shape[2]:
        problem = "got keys from a cache (use_cache=True)"
    elif others.get("softcap") is not None or others.get("s_aux") is not None:
        problem = "does not know this model's soft caps or attention sinks"
    if problem:
        raise ModelError(
            f"training: attention inside documents {problem}; give position_ids that restart at "
            "each document, use_cache=False and no mask, or set cross_document_attention: true"
        )


def _found(positions: Tensor | None, rows: int, length: int, device: torch.device) -> Documents:
    """Documents where positions restart; without positions each row is one."""
    if positions is None:
        return lay_out([length] * rows).to(device)
    return documents_of_positions(positions.expand(rows, length))


def _has_varlen(query: Tensor, dropout: float) -> bool:
    """Whether flash attention for variable lengths runs here: Ampere or newer, 16-bit, no dropout."""
    return (
        query.is_cuda
        and query.dtype in {torch.bfloat16, torch.float16}
        and dropout == 0
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
    )


def _by_varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    documents: Documents,
    scale: float | None,
    window: int | None,
    dropout: float,  # noqa: ARG001 - zero here
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    longest = documents.longest_tokens
    out = varlen_attn(
        *(query, key, value, documents.ends, documents.ends, longest, longest),
        scale=scale,
        window_size=(window - 1 if window else -1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(out, Tensor)  # nothing else was asked for
    return out


def _by_groups(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    documents: Documents,
    scale: float | None,
    window: int | None,
    dropout: float,
) -> Tensor:
    """Attention over documents of similar length at a time.  # (N, H, D)."""
    laid = [_to_places(tensor, documents) for tensor in (query, key, value)]  # (P, H, D)
    sizes = [number * width for number, width in documents.groups]
    outs = []
    for (number, width), *parts in zip(
        documents.groups, *(torch.split(tensor, sizes) for tensor in laid), strict=True
    ):
        one, two, three = (
            part.view(number, width, *part.shape[1:]).transpose(1, 2) for part in parts
        )
        mask = _band(width, window, query.device) if window and window < width else None
        out = F.scaled_dot_product_attention(
            *(one, two, three, mask, dropout, mask is None),
            scale=scale,
            enable_gqa=one.shape[1] != two.shape[1],
        )
        outs.append(out.transpose(1, 2).flatten(0, 1))
    out = outs[0] if len(outs) == 1 else torch.cat(outs)
    return _to_tokens(out, documents)


def _band(width: int, window: int, device: torch.device) -> Tensor:
    """Which of the last ``window`` tokens, itself included, each token sees.  # (L, L)."""
    place = torch.arange(width, device=device)
    back = place[:, None] - place[None, :]
    return (back >= 0) & (back < window)


def _to_places(tensor: Tensor, documents: Documents) -> Tensor:
    if documents.source is None:
        return tensor
    spread: Tensor = _Spread.apply(  # type: ignore[no-untyped-call]
        tensor, documents.source, documents.place
    )
    return spread


def _to_tokens(tensor: Tensor, documents: Documents) -> Tensor:
    return tensor if documents.place is None else tensor.index_select(0, documents.place)


class _Spread(torch.autograd.Function):
    """Copy tokens to their places. What fills is seen by nothing that counts: no gradient comes back.

    The gradient is another copy; that of ``index_select`` would be a sum, ten times slower.
    """

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, source: Tensor, place: Tensor) -> Tensor:
        ctx.save_for_backward(place)
        return tensor.index_select(0, source)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (place,) = ctx.saved_tensors
        return gradients[0].index_select(0, place), None, None
