"""Attention over all requests of a pack in at most three calls, on a GPU.

``packed`` computes attention for one request at a time, which suits a CPU; on a GPU hundreds of small
calls a layer would take longer than the matrix products. Here variable-length flash attention takes
all requests of a pack at once, in parts whose results are merged by their log-sum-exp in float32:

    own     trunks and branches, each a causal sequence of its own
    path    all tokens over what requests share, which comes before them
    trunk   branches over the trunk of their request

Needs what that kernel needs: CUDA from Ampere on, 16 bits, no sliding window in reach. Knows nothing
about layers.

Shapes: T tokens of a pack, P tokens of the path before them, H heads, G heads of keys, D head width.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from biomistral.models.continuations import Row


def is_available(values: Tensor) -> bool:
    """Whether the kernel runs for values of this kind on this device."""
    return (
        values.is_cuda
        and values.dtype in {torch.bfloat16, torch.float16}
        and torch.cuda.get_device_capability(values.device) >= (8, 0)
    )


@dataclass(frozen=True, slots=True)
class _Ends:
    """Sequences that follow each other: where they end, and how long the longest is."""

    ends: Tensor  # (number + 1,) int32, first 0
    longest: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Where trunks and branches of a pack lie. Made once a pack, used by every layer."""

    all: _Ends  # one sequence of all tokens
    own: _Ends
    # Of requests with branches: which tokens are branches, which are trunks, and where they end.
    branches: tuple[Tensor, _Ends] | None
    trunks: tuple[Tensor, _Ends] | None
    is_shared: bool  # the one row is what later packs begin with


def lay_out(rows: Sequence[Row], device: torch.device, *, is_shared: bool = False) -> Layout:
    """Lay out the rows of a pack, one behind the other."""
    own: list[int] = []
    branched: list[tuple[range, range]] = []  # trunk and branches of a request, as tokens
    start = 0
    for row in rows:
        own += [len(list(run)) for _, run in itertools.groupby(row.branches)]
        stop = start + len(row.tokens)
        trunk_stop = start + row.branches.count(0)
        if trunk_stop < stop:
            branched.append((range(start, trunk_stop), range(trunk_stop, stop)))
        start = stop
    trunks = [trunk for trunk, _ in branched]
    branches = [branch for _, branch in branched]
    return Layout(
        _ends([start], device),
        _ends(own, device),
        _gathered(branches, device) if branched else None,
        _gathered(trunks, device) if branched else None,
        is_shared,
    )


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    path: tuple[Tensor, Tensor] | None,
    layout: Layout,
    scaling: float,
) -> Tensor:
    """Return what queries (T, H, D) find in keys and values (T, G, D) and those of the path (P, G, D)."""
    found = [_causal(queries, keys, values, layout.own, scaling)]
    if path is not None:
        before = _ends([path[0].shape[0]], queries.device)
        found.append(_all(queries, *path, layout.all, before, scaling))
    if layout.branches is not None and layout.trunks is not None:
        (places, asking), (trunk_places, asked) = layout.branches, layout.trunks
        part, strength = _all(
            *(queries[places], keys[trunk_places], values[trunk_places]), asking, asked, scaling
        )
        nothing = strength.new_full(queries.shape[:2], float("-inf"))
        found.append(
            (
                torch.zeros_like(queries).index_copy_(0, places, part),
                nothing.index_copy_(0, places, strength),
            )
        )
    return _merged(found)


def _merged(found: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Merge partial attentions (T, H, D) by the logarithm of their sums (T, H)."""
    if len(found) == 1:
        return found[0][0]
    shares = torch.stack([strength for _, strength in found]).softmax(dim=0)  # float32
    together = sum(
        part.float() * share[..., None] for (part, _), share in zip(found, shares, strict=True)
    )
    assert isinstance(together, Tensor)  # not the 0 of an empty sum
    return together.to(found[0][0].dtype)


def _causal(
    queries: Tensor, keys: Tensor, values: Tensor, ends: _Ends, scaling: float
) -> tuple[Tensor, Tensor]:
    return _attention(queries, keys, values, ends, ends, scaling, window=(-1, 0))


def _all(
    queries: Tensor, keys: Tensor, values: Tensor, asking: _Ends, asked: _Ends, scaling: float
) -> tuple[Tensor, Tensor]:
    return _attention(queries, keys, values, asking, asked, scaling, window=(-1, -1))


def _attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    asking: _Ends,
    asked: _Ends,
    scaling: float,
    window: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Return attention (T, H, D) and the log-sum-exp of its scores (T, H), float32."""
    from torch.nn.attention.varlen import AuxRequest, varlen_attn

    part, strength = varlen_attn(
        queries,
        keys,
        values,
        asking.ends,
        asked.ends,
        asking.longest,
        asked.longest,
        return_aux=AuxRequest(lse=True),
        scale=scaling,
        window_size=window,
        enable_gqa=queries.shape[1] != keys.shape[1],
    )
    # The kernel gives (H, T), its documentation says (T, H).
    is_by_head = strength.shape == queries.shape[1::-1]
    return part, strength.transpose(0, 1) if is_by_head else strength


def _ends(lengths: Sequence[int], device: torch.device) -> _Ends:
    ends = list(itertools.accumulate(lengths, initial=0))
    return _Ends(torch.tensor(ends, dtype=torch.int32, device=device), max(lengths))


def _gathered(places: Sequence[range], device: torch.device) -> tuple[Tensor, _Ends]:
    tokens = torch.tensor([token for each in places for token in each], device=device)
    return tokens, _ends([len(each) for each in places], device)
