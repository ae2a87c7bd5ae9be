from __future__ import annotations

import math

import pytest
import torch

from biomistral.models.loading import load_model
from biomistral.quantization.quality import compare_losses, row_losses


def test_losses_are_those_of_each_document_alone(tiny_model):
    model = load_model(tiny_model, precision="float32", device=torch.device("cpu"))
    ids = torch.randint(3, 500, (40,), generator=torch.Generator().manual_seed(1))
    ((nats, tokens),) = row_losses(model, [(ids, (15, 25))])
    expected = 0.0
    with torch.no_grad():
        for document in ids.split([15, 25]):
            loss = model(document[None], labels=document[None]).loss
            expected += float(loss) * (len(document) - 1)
    assert tokens == 14 + 24
    assert nats == pytest.approx(expected, rel=1e-5)


def test_perplexities_worked_out_by_hand():
    found = compare_losses([(2.0, 2), (8.0, 8)], [(3.0, 2), (9.0, 8)])
    assert found["perplexity_before"] == pytest.approx(math.e)
    assert found["perplexity_after"] == pytest.approx(math.exp(1.2))
    assert found["added_nats_per_token"] == pytest.approx(0.2)
    # Residuals 1 - 0.2 * 2 and 1 - 0.2 * 8: sum of squares 0.36 + 0.36, twice over 1, over 10.
    spread = math.sqrt(0.72 * 2) / 10
    assert found["added_nats_per_token_high"] == pytest.approx(0.2 + 1.96 * spread)


def test_the_interval_covers_what_is_there_to_find():
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(200):
        noise = torch.randn(40, generator=generator)
        before = [(100.0, 50)] * 40
        after = [(100.0 + 50 * 0.1 + float(value), 50) for value in noise]
        found = compare_losses(before, after)
        low, high = found["added_nats_per_token_low"], found["added_nats_per_token_high"]
        covered += low < 0.1 < high
    assert 180 <= covered <= 198


def test_a_model_has_lost_nothing_against_itself():
    losses = [(2.0, 2), (8.0, 9)]
    found = compare_losses(losses, losses)
    assert found["added_nats_per_token"] == found["added_nats_per_token_low"] == 0
