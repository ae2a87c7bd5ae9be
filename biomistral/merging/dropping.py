"""Which elements DARE and DELLA keep: random numbers that depend on nothing but their place.

The number of an element is a function of (seed, model, tensor name, index of the element), so it
is the same for any number of threads, any order of tensors, any shards and any machine. The
generator is SplitMix64 (Steele, Lea & Flood, "Fast splittable pseudorandom number generators",
OOPSLA 2014): its state only counts, so its w-th output comes straight from w. One output serves
two elements: the low 32 bits the even one, the high 32 bits the odd one after it.

The compiled kernel mirrors these rules, bit for bit. Knows nothing about merging, and needs NumPy
only when numbers are made, so that plans are light.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_STEP = 0x9E3779B97F4A7C15
_FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def dropping_key(seed: int, model_index: int, tensor_name: str) -> int:
    """Return the 64-bit key of one tensor of one model; models count by their place in the list."""
    text = json.dumps([seed, model_index, tensor_name])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def keep_threshold(density: float) -> int:
    """Return the number below which an element's 32 bits must be for it to be kept."""
    return round(density * 2**32)


def keep_mask(key: int, density: float, start: int, stop: int) -> NDArray[np.bool_]:
    """Return which of the elements ``start`` to ``stop`` are kept, each with chance ``density``.

    Booleans of shape (stop - start,). A higher density keeps all that a lower one keeps.
    """
    import numpy as np

    threshold = keep_threshold(density)
    if threshold >= 2**32:
        return np.ones(stop - start, dtype=np.bool_)
    return random_numbers(key, start, stop) < np.uint32(threshold)


def random_numbers(key: int, start: int, stop: int) -> NDArray[np.uint32]:
    """Return the 32-bit numbers of the elements ``start`` to ``stop``: shape (stop - start,)."""
    import numpy as np

    first, end = start // 2, (stop + 1) // 2
    words = np.arange(first + 1, end + 1, dtype=np.uint64)
    words *= np.uint64(_STEP)
    words += np.uint64(key)
    for shift, factor in zip((30, 27), _FACTORS, strict=True):
        words ^= words >> np.uint64(shift)
        words *= np.uint64(factor)
    words ^= words >> np.uint64(31)
    numbers = words.astype("<u8", copy=False).view("<u4")
    return numbers[start - 2 * first : stop - 2 * first]
