"""The output head: float32 logits of a bfloat16 matrix, each row by itself."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from biomistral.models import head
from biomistral.models.head import head_logits


def made(dtype=torch.bfloat16, width=200, outputs=301, *, bias=False):
    torch.manual_seed(0)
    return nn.Linear(width, outputs, bias=bias).to(dtype)


@pytest.fixture(params=["compiled", "torch"])
def way(request, monkeypatch):
    if request.param == "compiled" and head.library() is None:
        pytest.skip("no compiler")
    if request.param == "torch":
        monkeypatch.setattr(head, "library", lambda: None)
    return request.param


@torch.inference_mode()
def test_logits_are_those_of_the_exact_product(way):
    layer = made()
    hidden = torch.randn(3, 200).bfloat16()
    expected = hidden.double() @ layer.weight.double().T
    error = (head_logits(layer, hidden).double() - expected).abs().max()
    assert error < (1e-5 if way == "compiled" else 3e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@torch.inference_mode()
def test_the_company_of_a_row_changes_no_bit(way, dtype):
    layer = made(dtype, 256, 512)
    hidden = torch.randn(40, 256, dtype=dtype)
    alone = head_logits(layer, hidden[:1])
    for number in (2, 5, 16, 17, 40):
        assert torch.equal(head_logits(layer, hidden[:number])[:1], alone)


@torch.inference_mode()
def test_it_does_not_depend_on_the_number_of_threads(threads):
    layer, hidden = made(), torch.randn(3, 200).bfloat16()
    alone = head_logits(layer, hidden)
    threads(3)
    assert torch.equal(head_logits(layer, hidden), alone)


@torch.inference_mode()
def test_a_head_that_is_no_plain_matrix_keeps_its_arithmetic():
    layer = made(bias=True)
    hidden = torch.randn(16, 200).bfloat16()
    torch.testing.assert_close(head_logits(layer, hidden), layer(hidden).float())
    assert head_logits(layer, hidden).dtype == torch.float32
