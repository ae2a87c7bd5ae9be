"""A stand-in for the attention kernel that only GPUs have."""

from __future__ import annotations

import math

import pytest
import torch


def attention(queries, keys, values, seen, scale):
    """Attention (T, H, D) where ``seen`` (T, S) says what sees what; and its log-sum-exp (H, T)."""
    repeats = queries.shape[1] // keys.shape[1]
    keys, values = (each.repeat_interleave(repeats, dim=1) for each in (keys, values))
    scores = torch.einsum("thd,shd->hts", queries, keys) * scale
    scores = scores.masked_fill(~seen, -math.inf)
    return torch.einsum("hts,shd->thd", scores.softmax(-1), values), scores.logsumexp(-1)


@pytest.fixture
def slow_attention():
    return attention


@pytest.fixture
def varlen_kernel(monkeypatch):
    """Put a slow stand-in in the place of variable-length attention; return its calls' windows."""
    import torch.nn.attention.varlen as library

    calls = []

    def stand_in(
        query, key, value, q, k, longest_q, longest_k, *, return_aux, scale, window_size, enable_gqa
    ):
        assert return_aux.lse
        assert q.dtype == k.dtype == torch.int32
        assert (longest_q, longest_k) == (q.diff().max(), k.diff().max())
        assert (q[-1], k[-1]) == (len(query), len(key))
        assert enable_gqa is (query.shape[1] != key.shape[1])
        calls.append(window_size)
        seen = torch.zeros(len(query), len(key), dtype=torch.bool)
        for i in range(len(q) - 1):
            block = seen[q[i] : q[i + 1], k[i] : k[i + 1]]
            block[:] = True
            if window_size == (-1, 0):
                block.tril_(block.shape[1] - block.shape[0])
        return attention(query, key, value, seen, scale)

    monkeypatch.setattr(library, "varlen_attn", stand_in)
    return calls
