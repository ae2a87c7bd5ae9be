"""Padded batches: a shared beginning is run once, and no batch is larger than asked."""

from __future__ import annotations

import random

import pytest

from biomistral.models import padded
from biomistral.models.continuations import Encoded


@pytest.fixture
def encoded():
    """Requests whose trunks share 40 tokens."""
    generator = random.Random(0)
    shared = [generator.randrange(500) for _ in range(40)]

    def tail():
        return [generator.randrange(500) for _ in range(generator.randint(1, 6))]

    return [Encoded(shared + tail() + tail(), [tail(), tail()], 50, [(), ()]) for _ in range(9)]


def test_the_shared_beginning_is_that_of_all_but_for_a_token_of_each(encoded):
    assert 40 <= padded._shared_tokens(encoded) < min(len(item.trunk) for item in encoded)
    twice = [encoded[0], encoded[0]]
    assert padded._shared_tokens(twice) == len(encoded[0].trunk) - 1


def test_little_that_is_shared_is_not_worth_a_mask(encoded):
    short = [Encoded(item.trunk[35:], item.tails, 9, item.alternatives) for item in encoded]
    assert padded._shared_tokens(short) == 0


@pytest.mark.parametrize("batch_tokens", [1, 40, 100, 1000])
def test_no_batch_is_larger_than_asked_unless_one_row_is(encoded, batch_tokens):
    batches = list(padded._batches(encoded, 0, batch_tokens))
    assert sorted(index for batch in batches for index in batch) == list(range(len(encoded)))
    for batch in batches:
        longest = max(padded._row_length(encoded[index], 0) for index in batch)
        assert len(batch) == 1 or len(batch) * longest <= batch_tokens
