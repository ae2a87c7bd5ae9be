"""Which example comes when in a tuning run: whole passes over the examples, each in its own order.

A pass ends with a step. Where its last step has fewer examples than others it is filled up, so that
every step can be shared evenly by several processes and is the same step however many there are.
The order depends on the number of examples and the seed, and on nothing else. Knows nothing about
what an example is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

NOTHING = -1  # stands where a step is filled up and nothing is learned


@dataclass(frozen=True)
class Epochs:
    """Examples in the order of training, as many in each step."""

    places: tuple[int, ...]  # index of an example, or NOTHING
    a_step: int

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the run."""
        return len(self.places) // self.a_step

    def of_step(self, step: int) -> list[int]:
        """Examples of an optimizer step, counted from 1; one that fills it up again only once."""
        own = self.places[(step - 1) * self.a_step : step * self.a_step]
        return [index for index in dict.fromkeys(own) if index != NOTHING]

    def totals_after(self, sizes: Sequence[int]) -> list[int]:
        """Sum of ``sizes`` of the examples in the first 0, 1, 2, ... steps."""
        of_steps = [
            sum(
                sizes[index]
                for index in self.places[start : start + self.a_step]
                if index != NOTHING
            )
            for start in range(0, len(self.places), self.a_step)
        ]
        return [0, *accumulate(of_steps)]


def num_steps(num_examples: int, a_step: int, epochs: float) -> int:
    """Steps of so many passes over the examples; the last one of a pass may have fewer."""
    # 1.1 x 10 is more than 11 in binary.
    return max(1, math.ceil(round(epochs * math.ceil(num_examples / a_step), 6)))


def line_up(
    num_examples: int, a_step: int, *, epochs: float, seed: int, repeat: bool = False
) -> Epochs:
    """Lay out the passes. The last step of each is filled up with ``NOTHING``, or by ``repeat``.

    To repeat is to begin the same pass again: for losses that are a mean over the examples of a
    forward pass, which nothing can stand in for.
    """
    places: list[int] = []
    total = num_steps(num_examples, a_step, epochs) * a_step
    whole = math.ceil(num_examples / a_step) * a_step
    while len(places) < total:
        generator = torch.Generator().manual_seed(seed + len(places) // whole)
        order = torch.randperm(num_examples, generator=generator).tolist()
        filling = [order[index % num_examples] for index in range(whole - num_examples)]
        places += order + (filling if repeat else [NOTHING] * len(filling))
    return Epochs(tuple(places[:total]), a_step)
