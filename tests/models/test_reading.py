"""Reading log-probabilities: a float32 head at places that are read, a fixed number of rows at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from biomistral.models import reading
from biomistral.models.continuations import Encoded
from biomistral.models.reading import Reads, float32_head, read, reads_of


def test_a_bfloat16_head_gives_the_best_letters_of_exact_arithmetic():
    generator = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(64, 4, bias=False, dtype=torch.bfloat16)
    with torch.no_grad():  # letters that are hard to tell apart, far from 0
        rows = torch.randn(64, generator=generator) + 0.02 * torch.randn(4, 64, generator=generator)
        head.weight.copy_(rows)
    hidden = torch.randn(300, 64, generator=generator).bfloat16()
    exact = (hidden.double() @ head.weight.double().T).argmax(dim=1)
    assert torch.equal(float32_head(head)(hidden).argmax(dim=1), exact)
    assert (head(hidden).argmax(dim=1) == exact).float().mean() < 0.95


def test_a_head_with_a_bias_and_one_that_is_no_plain_matrix():
    hidden = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    plain = torch.nn.Linear(8, 5)
    assert torch.allclose(float32_head(plain)(hidden), plain(hidden))
    other = torch.nn.Sequential(plain, torch.nn.Tanh()).bfloat16()
    logits = float32_head(other)(hidden.bfloat16())
    assert torch.equal(logits, other(hidden.bfloat16()).float())


@pytest.mark.parametrize("num_places", [1, 31, 32, 33, 100])
def test_what_is_read_is_the_log_softmax(num_places):
    generator = torch.Generator().manual_seed(num_places)
    head = torch.nn.Linear(16, 50)
    hidden = torch.randn(num_places, 16, generator=generator)
    rng = np.random.default_rng(0)
    places = np.sort(rng.integers(0, num_places, 77))
    tokens = rng.integers(0, 50, 77)
    with torch.no_grad():
        found, best = read(float32_head(head), hidden, Reads(places, tokens, places, num_places))
        expected = head(hidden).log_softmax(dim=-1)
    assert np.allclose(found, expected[places, tokens], atol=1e-5)
    assert np.array_equal(best, expected.argmax(dim=-1))


def test_the_head_always_gets_the_same_number_of_rows():
    shapes = []

    def head(rows):
        shapes.append(tuple(rows.shape))
        return torch.zeros(len(rows), 5)

    places = np.arange(40)
    read(head, torch.zeros(40, 8), Reads(places, places % 5, places, 40))
    assert shapes == [(reading._ROWS, 8)] * 2


def test_reads_number_places_and_continuations_through():
    """Of "a b" and the tails "c", "d e" one place is the end of the trunk, one is behind "d"."""
    one = Encoded([1, 2], [[3], [4, 5]], 2, [(), ()])
    other = Encoded([7], [[8], [9]], 1, [(6,), ()])
    reads = reads_of([one, other])
    wanted = sorted(zip(reads.places, reads.tokens, reads.continuations, strict=True))
    assert wanted == [(0, 3, 0), (0, 4, 1), (1, 5, 1), (2, 6, 2), (2, 8, 2), (2, 9, 3)]
    assert reads.num_continuations == 4
