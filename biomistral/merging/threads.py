"""Threads for work on many tensors: one tensor per thread. Knows nothing about the work."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch


@contextlib.contextmanager
def workers(at_most: int | None = None) -> Iterator[ThreadPoolExecutor]:
    """Hand out as many threads as PyTorch is set to, each of which computes alone.

    Sharing every operation among all threads means waiting for the slowest of them each time: on
    a busy machine of two cores that was ten times slower than one thread alone (measured). And
    what one thread computes does not depend on how many there are.
    """
    num_threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(
            min(num_threads, at_most or num_threads),
            initializer=torch.set_num_threads,
            initargs=(1,),
        ) as pool:
            yield pool
    finally:
        torch.set_num_threads(num_threads)
