"""The arithmetic of AWQ: 4-bit weights that spare the inputs with large activations.

Rounding hurts most where a weight meets a large input. AWQ multiplies such columns of a weight by
a scale before rounding and divides the input by it, which changes nothing but the rounding. Then
it searches how far each group's range may be cut before rounding.
Follows Lin et al., arXiv 2306.00978 (equations 4 and 5), and where the paper is silent its code:
asymmetric groups, 20 exponents, ranges cut down to just over one half.

All errors are mean squared errors of the layer's output over the calibration tokens. For a
difference D of weights that is trace(D G D^T) with G the mean outer product of the inputs, so
that G is all that must be kept of any number of tokens.

Knows nothing about models, files, or what absorbs a scale.

Shapes: T tokens, N outputs, K inputs, g group size, G groups (K / g).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from biomistral.models.awq import LEVELS, PackedLinear, pack

NUM_EXPONENTS = 20  # alpha = 0, 0.05, ..., 0.95
NUM_CUTS = 10  # ranges of 1, 0.95, ..., 0.55 times the full one
CUT_STEP = 0.05
_SMALLEST_HALF = 2.0**-24


@dataclass(frozen=True)
class QuantizedWeight:
    """A weight in 4 bits: ``(levels - zeros) * scales``, groups running along the inputs."""

    levels: Tensor  # uint8 (N, K), 0 to 15
    zeros: Tensor  # uint8 (N, G), 0 to 15
    scales: Tensor  # float16 (N, G), positive

    def weight(self) -> Tensor:
        """Return the weight that this stands for, in float32.  # (N, K)."""
        outputs, num_groups = self.zeros.shape
        levels = self.levels.float().reshape(outputs, num_groups, -1)
        return ((levels - self.zeros.float()[..., None]) * self.scales.float()[..., None]).flatten(
            1
        )

    def packed(self) -> PackedLinear:
        """Return it in the layout of a checkpoint."""
        return PackedLinear(
            qweight=pack(self.levels.T),
            qzeros=pack(self.zeros.T),
            scales=self.scales.T.contiguous(),
        )


class InputStatistics:
    """What must be known of the inputs of a linear layer: see the module's docstring."""

    def __init__(self, absolute_sum: Tensor, outer_sum: Tensor, num_tokens: int) -> None:
        self._absolute_sum = absolute_sum  # float32 (K,)
        self._outer_sum = outer_sum  # float32 (K, K)
        self.num_tokens = num_tokens

    @classmethod
    def empty(cls, num_inputs: int, device: torch.device | str = "cpu") -> InputStatistics:
        """Start with no token seen."""
        return cls(
            torch.zeros(num_inputs, device=device),
            torch.zeros(num_inputs, num_inputs, device=device),
            0,
        )

    def add(self, inputs: Tensor) -> None:
        """Take in the inputs of some tokens.  # (T, K)."""
        inputs = inputs.float()
        self._absolute_sum += inputs.abs().sum(dim=0)
        self._outer_sum.addmm_(inputs.T, inputs)
        self.num_tokens += inputs.shape[0]

    @property
    def magnitude(self) -> Tensor:
        """Mean absolute input.  # (K,)."""
        return self._absolute_sum / self.num_tokens

    @property
    def gram(self) -> Tensor:
        """Mean outer product of an input with itself.  # (K, K)."""
        return self._outer_sum / self.num_tokens

    def divided(self, scale: Tensor) -> InputStatistics:
        """Return the statistics of the same inputs divided by ``scale`` (K,)."""
        return InputStatistics(
            self._absolute_sum / scale, self._outer_sum / torch.outer(scale, scale), self.num_tokens
        )


def round_to_nearest(weight: Tensor, group_size: int) -> QuantizedWeight:
    """Quantize a float32 weight (N, K), each group over the range from its least to its greatest.

    The range always takes in 0, so that 0 stays exactly 0 and the zero point fits in 4 bits.
    """
    groups = weight.reshape(weight.shape[0], -1, group_size)  # (N, G, g)
    low = groups.amin(dim=-1).clamp(max=0)
    high = groups.amax(dim=-1).clamp(min=0)
    # Rounded to half before use: levels must be chosen for the scale that is stored.
    scales = ((high - low) / (LEVELS - 1)).clamp(min=_SMALLEST_HALF).half()
    step = scales.float()
    zeros = torch.round(-low / step).clamp(0, LEVELS - 1)
    levels = (torch.round(groups / step[..., None]) + zeros[..., None]).clamp(0, LEVELS - 1)
    return QuantizedWeight(levels.flatten(1).to(torch.uint8), zeros.to(torch.uint8), scales)


def output_error(difference: Tensor, gram: Tensor) -> float:
    """Mean over the tokens of the squared length of ``difference @ input``; difference (N, K)."""
    return max(0.0, float(((difference @ gram) * difference).sum()))


def search_scale(weights: Sequence[Tensor], statistics: InputStatistics, group_size: int) -> Tensor:
    """Return the scale (K,) with the least output error for weights (N, K) that share an input.

    The scale is ``magnitude ** alpha``; alpha = 0 is plain rounding, and ties go to the smaller.
    """
    gram = statistics.gram
    best_error, best_scale = float("inf"), torch.ones_like(statistics.magnitude)
    for index in range(NUM_EXPONENTS):
        scale = _scale(statistics.magnitude, index / NUM_EXPONENTS)
        error = 0.0
        for weight in weights:
            rounded = round_to_nearest(weight * scale, group_size).weight() / scale
            error += output_error(rounded - weight, gram)
        if error < best_error:
            best_error, best_scale = error, scale
    return best_scale


def search_cut(weight: Tensor, gram: Tensor, group_size: int) -> Tensor:
    """Return the weight (N, K) with each group clamped to the range of least output error.

    Groups are judged one by one, as if the rest of the weight were exact; ties go to the wider
    range.
    """
    groups = weight.reshape(weight.shape[0], -1, group_size)  # (N, G, g)
    blocks = torch.stack(_diagonal_blocks(gram, group_size))  # (G, g, g)
    full = groups.abs().amax(dim=-1, keepdim=True)
    best_error = torch.full(groups.shape[:2], float("inf"), device=weight.device)
    best = groups
    for index in range(NUM_CUTS):
        limit = full * (1 - index * CUT_STEP)
        cut = groups.clamp(-limit, limit)
        difference = round_to_nearest(cut.flatten(1), group_size).weight() - weight
        error = _group_errors(difference, blocks)
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best = torch.where(better[..., None], cut, best)
    return best.flatten(1)


def _scale(magnitude: Tensor, exponent: float) -> Tensor:
    """``magnitude ** exponent``, centred so that the largest times the smallest is 1."""
    scale = magnitude.pow(exponent).clamp(min=1e-4)  # a channel that is never used stays finite
    centre: Tensor = (scale.max() * scale.min()).sqrt()
    return scale / centre


def _diagonal_blocks(gram: Tensor, group_size: int) -> list[Tensor]:
    starts = range(0, gram.shape[0], group_size)
    return [gram[i : i + group_size, i : i + group_size] for i in starts]


def _group_errors(difference: Tensor, blocks: Tensor) -> Tensor:
    """Output error of each group alone.  # (N, G)."""
    num_groups, group_size, _ = blocks.shape
    by_group = difference.reshape(-1, num_groups, group_size).transpose(0, 1)  # (G, N, g)
    return ((by_group @ blocks) * by_group).sum(dim=-1).T
