"""Threads that compute alone, and leave PyTorch as it was."""

from __future__ import annotations

import pytest
import torch

from biomistral.merging.threads import workers


def test_each_worker_computes_with_one_thread_and_the_setting_comes_back():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with workers() as pool:
            assert list(pool.map(lambda _: torch.get_num_threads(), range(5))) == [1] * 5
        assert torch.get_num_threads() == 3
        with pytest.raises(ValueError, match="stop"), workers(at_most=1) as pool:
            raise ValueError("stop")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
