"""Which elements DARE keeps: random numbers that depend on nothing but their place.

The number of an element is a function of (seed, model, tensor name, index of the element), so it
is the same for any number of threads, any order of tensors, any shards and any machine. The
generator is Philox4x64-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011)
as NumPy counts it: eight numbers of 32 bits per step of the counter, low half first, and the first
step is one past the counter it was given. Knows nothing about merging.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np
import torch
from torch import Tensor

_NUMBERS_PER_STEP = 8


def dropping_key(seed: int, model_index: int, tensor_name: str) -> int:
    """Return the 128-bit key of one tensor of one model; models count by their place in the list."""
    text = json.dumps([seed, model_index, tensor_name])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")


def keep_mask(key: int, density: float, start: int, stop: int) -> Tensor:
    """Return which of the elements ``start`` to ``stop`` are kept, each with chance ``density``.

    Booleans of shape (stop - start,). An element is kept if its number is below density x 2^32,
    so a higher density keeps all that a lower one keeps.
    """
    threshold = round(density * 2**32)
    if threshold == 2**32:
        return torch.ones(stop - start, dtype=torch.bool)
    first_step = start // _NUMBERS_PER_STEP
    num_steps = -(-stop // _NUMBERS_PER_STEP) - first_step
    words = np.random.Philox(key=key, counter=first_step).random_raw(num_steps * 4)
    numbers = words.astype("<u8", copy=False).view("<u4")
    offset = start - first_step * _NUMBERS_PER_STEP
    return torch.from_numpy(numbers[offset : offset + stop - start] < np.uint32(threshold))
