"""Fused steps: as near to exact arithmetic as PyTorch's own, on every shape and every number."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import MistralConfig
from transformers.models.mistral.modeling_mistral import (
    MistralMLP,
    MistralRMSNorm,
    MistralRotaryEmbedding,
    apply_rotary_pos_emb,
)

from biomistral.models import fused

WIDTHS = (7, 64, 200)


@pytest.fixture(params=["compiled", "torch"], autouse=True)
def way(request, monkeypatch):
    """Let every test run with the compiled functions and without."""
    if request.param == "torch":
        monkeypatch.setattr(fused, "library", lambda: None)
    elif fused.library() is None:
        pytest.skip("no C compiler: the compiled functions cannot be built")
    return request.param


def numbers(*shape, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator) * scale).bfloat16()


@pytest.mark.parametrize("width", WIDTHS)
def test_norms_are_those_of_transformers(width):
    norm = MistralRMSNorm(width, eps=1e-5).bfloat16()
    norm.weight.data = numbers(width, seed=1)
    hidden = numbers(33, width, scale=3.0)
    with torch.no_grad():
        assert torch.equal(fused.normalized(norm, hidden), norm(hidden))


def test_a_norm_of_another_kind_is_left_alone():
    norm = torch.nn.LayerNorm(16).bfloat16()
    hidden = numbers(3, 16)
    with torch.no_grad():
        assert torch.equal(fused.normalized(norm, hidden), norm(hidden))


@pytest.mark.parametrize("width", WIDTHS)
def test_the_feed_forward_part_is_as_exact_as_that_of_transformers(width):
    config = MistralConfig(hidden_size=16, intermediate_size=width)
    torch.manual_seed(0)
    mlp = MistralMLP(config).bfloat16()
    hidden = numbers(500, 16, scale=2.0)
    with torch.no_grad():
        found, theirs = fused.gated(mlp, hidden.clone()), mlp(hidden)
        exact = mlp.double()(hidden.double())
    assert (found - exact).abs().mean() <= 1.02 * (theirs - exact).abs().mean()


def test_gates_take_every_number(way):
    mlp = MistralMLP(MistralConfig(hidden_size=8, intermediate_size=8)).bfloat16()
    values = [0.0, -0.0, 1e-15, 39.9, 41.0, 1e15, -39.9, -41.0, -1e15]
    with torch.no_grad():
        for projection in (mlp.gate_proj, mlp.up_proj, mlp.down_proj):
            projection.weight.copy_(torch.eye(8))
        for value in values:
            hidden = torch.full((1, 8), value).bfloat16()
            exact = hidden.double() * hidden.double().sigmoid() * hidden.double()
            found = fused.gated(mlp, hidden).double()
            torch.testing.assert_close(found, exact, rtol=0.01, atol=0.5 if value < -1e9 else 1e-10)
        assert fused.gated(mlp, torch.full((1, 8), math.nan).bfloat16()).isnan().all()


@pytest.mark.parametrize("width", [8, 64])
def test_turns_are_as_exact_as_those_of_transformers(width):
    config = MistralConfig(hidden_size=4 * width, num_attention_heads=4, head_dim=width)
    rotary = MistralRotaryEmbedding(config)
    vectors = numbers(50, 3, width)
    positions = torch.arange(900, 950)[None]
    cosine, sine = rotary(vectors.float(), positions)
    found = fused.turned(vectors.clone(), cosine[0], sine[0]).double()
    queries = vectors.transpose(0, 1)[None]
    theirs, _ = apply_rotary_pos_emb(queries, queries, *rotary(vectors, positions))
    exact, _ = apply_rotary_pos_emb(
        queries.double(), queries.double(), cosine.double(), sine.double()
    )
    exact = exact[0].transpose(0, 1)
    theirs = theirs[0].transpose(0, 1).double()
    assert (found - exact).abs().mean() < (theirs - exact).abs().mean()
    assert (found - exact).abs().max() < 0.02
