"""What holds for every method: same bits for any threads and blocks, inputs left alone."""

from __future__ import annotations

import pytest
import torch

from biomistral.merging.methods import METHODS, Share

ARGUMENTS = {
    "slerp": {"t": 0.4},
    "nearswap": {"t": 0.4},
    "sce": {"select_topk": 0.4},
    "dare_linear": {"rescale": "l1_norm"},
    "della_linear": {"rescale": "l1_norm"},
}
ONE_MODEL = ("slerp", "nearswap", "passthrough")


def merged(run, normal, method, n):
    base = normal(0, n)
    numbers = {"gamma": 0.1, "epsilon": 0.2, "row_elements": 700}
    shares = [
        Share(base + normal(1, n), 0.5, 0.5, key=8, **numbers),
        Share(normal(2, n), 0.3, 0.4, key=9, **numbers),
    ]
    shares = shares[:1] if method in ONE_MODEL else shares
    return run(method, base, shares, **ARGUMENTS.get(method, {}))


@pytest.mark.parametrize("method", METHODS)
def test_threads_and_blocks_change_no_bit(run, normal, method, monkeypatch):
    from biomistral.merging.methods import blocks

    n = 70_000  # above the 32,768 elements from which PyTorch shares work among threads
    before = torch.get_num_threads()
    results = []
    try:
        for num_threads, block_elements in ((1, 1 << 18), (2, 1 << 18), (1, 4096)):
            torch.set_num_threads(num_threads)
            monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", block_elements)
            results.append(merged(run, normal, method, n))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("method", METHODS)
def test_inputs_are_left_as_they_are(run, normal, method):
    base, models = normal(0), [normal(1), normal(2)]
    shares = [Share(model, 0.5, 0.5) for model in models]
    shares = shares[:1] if method in ONE_MODEL else shares
    run(method, base, shares, **ARGUMENTS.get(method, {}))
    assert torch.equal(base, normal(0))
    assert all(torch.equal(model, normal(1 + i)) for i, model in enumerate(models))
