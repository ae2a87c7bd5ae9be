"""What the tests of the methods share."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session")
def run():
    """Return a function that applies a method by name and joins its blocks."""
    from biomistral.merging.methods import METHODS

    def apply(method, base, shares, **options):
        base = base if base is None else torch.as_tensor(base)
        blocks = list(METHODS[method](base, shares, **options))
        assert method == "passthrough" or all(block.dtype == torch.float32 for block in blocks)
        return torch.cat(blocks)

    return apply


@pytest.fixture(scope="session")
def share():
    """Return a function from plain numbers to a share."""
    from biomistral.merging.methods import Share

    return lambda values, weight=1.0, **numbers: Share(torch.as_tensor(values), weight, **numbers)


@pytest.fixture(scope="session")
def normal():
    """Return a function from a seed to 5,000 normal numbers: two blocks of the smaller kind."""
    return lambda seed, n=5000: torch.randn(n, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=[4096, 1 << 18])
def block_elements(request, monkeypatch):
    """Small blocks too: no result may depend on where a tensor is cut."""
    from biomistral.merging.methods import blocks

    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", request.param)
    return request.param
