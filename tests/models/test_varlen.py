"""Attention in three calls: equal to attention over one sequence at a time.

The kernel has no CPU form; ``varlen_kernel`` stands for it and computes the same slowly.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.attention.varlen as library

from biomistral.models import varlen
from biomistral.models.continuations import Row

SCALING = 0.3


def row(trunk, *branches):
    tokens = [1] * (trunk + sum(branches))
    of = [0] * trunk + [index for index, n in enumerate(branches, start=1) for _ in range(n)]
    return Row(tokens, list(range(len(tokens))), of, [])


def expected(slow_attention, queries, keys, values, path, rows):
    before = 0 if path is None else len(path[0])
    of = [(index, branch) for index, each in enumerate(rows) for branch in each.branches]
    seen = torch.ones(len(of), before + len(of), dtype=torch.bool)
    for i, (request, branch) in enumerate(of):
        for j, (other, another) in enumerate(of):
            seen[i, before + j] = j <= i and other == request and another in {0, branch}
    if path is not None:
        keys, values = torch.cat([path[0], keys]), torch.cat([path[1], values])
    return slow_attention(queries, keys, values, seen, SCALING)[0]


@pytest.mark.parametrize(
    ("rows", "num_calls"),
    [
        ([row(5)], 2),
        ([row(5), row(1), row(9)], 2),
        ([row(4, 2, 3), row(6), row(1, 1), row(2, 5, 1, 1)], 3),
    ],
)
@pytest.mark.parametrize("before", [0, 7])
def test_three_calls_find_what_each_request_finds_alone(
    varlen_kernel, slow_attention, rows, num_calls, before
):
    generator = torch.Generator().manual_seed(before)
    num_tokens = sum(len(each.tokens) for each in rows)
    queries = torch.randn(num_tokens, 4, 8, generator=generator)
    keys, values = torch.randn(2, num_tokens, 2, 8, generator=generator)
    # As it lies in the buffer: heads first, so that a token's heads are not side by side.
    buffer = torch.randn(2, 2, 20, 8, generator=generator)[:, :, :before].transpose(1, 2)
    path = (buffer[0], buffer[1]) if before else None
    layout = varlen.lay_out(rows, torch.device("cpu"))
    found = varlen.attend(queries, keys, values, path, layout, SCALING)
    torch.testing.assert_close(found, expected(slow_attention, queries, keys, values, path, rows))
    assert len(varlen_kernel) == num_calls - (not before)


@pytest.mark.usefixtures("varlen_kernel")
def test_a_log_sum_exp_in_either_shape_is_understood(monkeypatch):
    rows = [row(3), row(4, 1)]
    queries, keys, values = torch.randn(3, 8, 2, 4)
    layout = varlen.lay_out(rows, torch.device("cpu"))
    by_head = varlen.attend(queries, keys, values, (keys, values), layout, SCALING)
    original = library.varlen_attn

    def by_token_first(*given, **options):
        found, strength = original(*given, **options)
        return found, strength.T

    monkeypatch.setattr(library, "varlen_attn", by_token_first)
    by_token = varlen.attend(queries, keys, values, (keys, values), layout, SCALING)
    torch.testing.assert_close(by_token, by_head)


def test_a_cpu_has_no_such_kernel():
    assert not varlen.is_available(torch.zeros(1, dtype=torch.bfloat16))
