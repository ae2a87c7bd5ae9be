"""The course of the learning rate: a pure function of the step. Knows nothing about optimizers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Shape = Literal["cosine", "linear", "constant"]


@dataclass(frozen=True)
class Course:
    """Rise to the peak, then fall to a floor. Fractions are of the peak rate."""

    num_steps: int
    warmup_steps: int = 0
    shape: Shape = "cosine"
    floor_fraction: float = 0.0  # reached at the end
    start_fraction: float = 0.0  # of the warm-up; for re-warming, the floor of the run before

    def __call__(self, step: int) -> float:
        """Fraction of the peak rate in the step after ``step`` steps are done; in [0, 1]."""
        if step < self.warmup_steps:
            return self.start_fraction + (1 - self.start_fraction) * step / self.warmup_steps
        falling = max(1, self.num_steps - self.warmup_steps)
        done = min(1.0, (step - self.warmup_steps) / falling)
        left = {"cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done, "constant": 1.0}
        return self.floor_fraction + (1 - self.floor_fraction) * left[self.shape]
