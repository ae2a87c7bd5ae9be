"""Share a range out among as many threads as PyTorch would use, for compiled functions.

Knows nothing about what they do; they must let go of Python's lock, as those of ctypes do.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch


def share_out(work: Callable[[int, int], object], number: int) -> None:
    """Call ``work(first, last)`` for parts of ``range(number)``, at the same time; wait for all."""
    num_threads = min(torch.get_num_threads(), number)
    if num_threads <= 1:
        work(0, number)
        return
    ends = [number * index // num_threads for index in range(num_threads + 1)]
    waiting = [
        _pool(num_threads).submit(work, first, last) for first, last in itertools.pairwise(ends)
    ]
    for each in waiting:
        each.result()


@functools.lru_cache(maxsize=2)
def _pool(num_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(num_threads, thread_name_prefix="share")


if hasattr(os, "register_at_fork"):
    # Threads do not come along: what is given to them there would wait for ever.
    os.register_at_fork(after_in_child=_pool.cache_clear)
