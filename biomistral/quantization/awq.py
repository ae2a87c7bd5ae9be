"""The arithmetic of AWQ: 4-bit weights that spare the inputs with large activations.

Rounding hurts most where a weight meets a large input. AWQ multiplies such columns of a weight by
a scale before rounding and divides the input by it, which changes nothing but the rounding. Then
it searches how far each group's range may be cut before rounding.
Follows Lin et al., arXiv 2306.00978 (equations 4 and 5), and where the paper is silent its code:
asymmetric groups, 20 exponents, ranges cut down to just over one half.

All errors are mean squared errors of the layer's output over the calibration tokens. For a
difference D of weights that is trace(D G D^T) with G the mean outer product of the inputs. Up to
``SKETCH_ROWS`` inputs G is kept whole. For more it would be larger than the weight and most of the
work, so a count sketch S (Clarkson and Woodruff, arXiv 1207.6365) stands for it: each token is
added, with a random sign, to one of ``SKETCH_ROWS`` rows, and trace(D S^T S D^T) has the same
expectation, from all tokens. Cuts need only the diagonal blocks of G, which are kept whole.

Weights are worked on in blocks of rows in float32, so that no copy of a whole one is made. Knows
nothing about models, files, or what absorbs a scale.

Shapes: T tokens, N outputs, K inputs, g group size, G groups (K / g), S rows of the sketch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from biomistral.models.awq import LEVELS

NUM_EXPONENTS = 20  # alpha = 0, 0.05, ..., 0.95
NUM_CUTS = 10  # ranges of 1, 0.95, ..., 0.55 times the full one
CUT_STEP = 0.05
SKETCH_ROWS = 1024
SEARCH_OUTPUTS = 2048  # that the search for a scale looks at, evenly spaced; the rest are like them
_BLOCK_ELEMENTS = 2**22  # 16 MB of float32, of which some ten are held at a time
_TOKENS_AT_ONCE = 256  # of which several copies in float32 are made
_SMALLEST_HALF = 2.0**-24


@dataclass(frozen=True)
class ScaledWeight:
    """``stored * columns / rows``, a weight (N, K) that is computed a block at a time."""

    stored: Tensor  # (N, K), any floating type
    columns: Tensor | None = None  # float32 (K,)
    rows: Tensor | None = None  # float32 (N,)

    def thinned(self, num_rows: int) -> ScaledWeight:
        """Return no more than ``num_rows`` of the rows, evenly spaced."""
        step = -(-self.stored.shape[0] // num_rows)
        rows = None if self.rows is None else self.rows[::step]
        return ScaledWeight(self.stored[::step], self.columns, rows)

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield blocks of rows in float32, and which rows they are.  # (n, K)."""
        num_rows, num_columns = self.stored.shape
        step = max(8, _BLOCK_ELEMENTS // num_columns)
        for start in range(0, num_rows, step):
            span = slice(start, min(start + step, num_rows))
            block = self.stored[span].float()
            if self.columns is not None:
                block = block * self.columns
            if self.rows is not None:
                block = block / self.rows[span, None]
            yield span, block


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


class InputStatistics:
    """What must be known of the inputs of a linear layer: see the module's docstring."""

    def __init__(
        self, num_inputs: int, group_size: int, device: torch.device | str = "cpu", seed: int = 0
    ) -> None:
        num_groups = num_inputs // group_size
        self.num_tokens = 0
        self.is_exact = num_inputs <= SKETCH_ROWS
        self._group_size = group_size
        self._generator = torch.Generator().manual_seed(seed)
        self._absolute_sum = torch.zeros(num_inputs, device=device)
        self._blocks = torch.zeros(num_groups, group_size, group_size, device=device)
        rows = num_inputs if self.is_exact else SKETCH_ROWS
        self._whole = torch.zeros(rows, num_inputs, device=device)  # the gram, or the sketch

    def add(self, inputs: Tensor) -> None:
        """Take in the inputs of some tokens.  # (T, K)."""
        for start in range(0, inputs.shape[0], _TOKENS_AT_ONCE):
            self._add(inputs[start : start + _TOKENS_AT_ONCE].float())

    def _add(self, inputs: Tensor) -> None:
        num_tokens = inputs.shape[0]
        self._absolute_sum += inputs.abs().sum(dim=0)
        grouped = inputs.view(num_tokens, -1, self._group_size).transpose(0, 1)  # (G, T, g)
        self._blocks.baddbmm_(grouped.transpose(1, 2), grouped)
        if self.is_exact:
            self._whole.addmm_(inputs.T, inputs)
        else:
            places = torch.randint(SKETCH_ROWS, (num_tokens,), generator=self._generator)
            signs = torch.randint(2, (num_tokens, 1), generator=self._generator) * 2 - 1
            signed = inputs * signs.to(inputs)
            self._whole.index_add_(0, places.to(inputs.device), signed)
        self.num_tokens += num_tokens

    @property
    def magnitude(self) -> Tensor:
        """Mean absolute input.  # (K,)."""
        return self._absolute_sum / self.num_tokens

    @property
    def blocks(self) -> Tensor:
        """Mean outer product of each group of the inputs with itself.  # (G, g, g)."""
        return self._blocks / self.num_tokens

    def divide(self, scale: Tensor) -> None:
        """Become the statistics of the same inputs divided by ``scale`` (K,)."""
        grouped = scale.view(-1, self._group_size)
        self._absolute_sum /= scale
        self._blocks /= grouped[:, :, None] * grouped[:, None, :]
        self._whole /= scale
        if self.is_exact:
            self._whole /= scale[:, None]

    def output_error(self, difference: Tensor) -> float:
        """Mean over the tokens of the squared length of ``difference @ input``; (n, K)."""
        if self.is_exact:
            total = ((difference @ self._whole) * difference).sum()
        else:
            total = (difference @ self._whole.T).square().sum()
        return max(0.0, float(total) / self.num_tokens)


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
    levels = torch.round(groups / step[..., None]).add_(zeros[..., None]).clamp_(0, LEVELS - 1)
    return QuantizedWeight(levels.flatten(1).to(torch.uint8), zeros.to(torch.uint8), scales)


def search_scale(
    weights: Sequence[ScaledWeight],
    statistics: InputStatistics,
    group_size: int,
    magnitude: Tensor | None = None,
) -> Tensor:
    """Return the scale (K,) with the least output error for weights (N, K) that share an input.

    The scale is ``magnitude ** alpha``; alpha = 0 is plain rounding, and ties go to the smaller.
    ``magnitude`` (K,) is that of the statistics if none is given.
    """
    magnitude = statistics.magnitude if magnitude is None else magnitude
    scales = [_scale(magnitude, index / NUM_EXPONENTS) for index in range(NUM_EXPONENTS)]
    errors = [0.0] * NUM_EXPONENTS
    for weight in weights:
        for _, block in weight.thinned(SEARCH_OUTPUTS).blocks():
            for index, scale in enumerate(scales):
                rounded = round_to_nearest(block * scale, group_size).weight().div_(scale)
                errors[index] += statistics.output_error(rounded.sub_(block))
    return scales[min(range(NUM_EXPONENTS), key=errors.__getitem__)]


def search_cut(weight: Tensor, blocks: Tensor, group_size: int) -> Tensor:
    """Return the weight (N, K) with each group clamped to the range of least output error.

    ``blocks`` (G, g, g) are those of the statistics. Groups are judged one by one, as if the rest
    of the weight were exact; ties go to the wider range.
    """
    groups = weight.reshape(weight.shape[0], -1, group_size)  # (N, G, g)
    full = groups.abs().amax(dim=-1, keepdim=True)
    best_error = torch.full(groups.shape[:2], math.inf, device=weight.device)
    best_limit = full
    for index in range(NUM_CUTS):
        limit = full * (1 - index * CUT_STEP)
        cut = groups.clamp(-limit, limit)
        difference = round_to_nearest(cut.flatten(1), group_size).weight() - weight
        error = _group_errors(difference, blocks)
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best_limit = torch.where(better[..., None], limit, best_limit)
    return groups.clamp(-best_limit, best_limit).flatten(1)


def _scale(magnitude: Tensor, exponent: float) -> Tensor:
    """``magnitude ** exponent``, centred so that the largest times the smallest is 1."""
    scale = magnitude.pow(exponent).clamp(min=1e-4)  # a channel that is never used stays finite
    centre: Tensor = (scale.max() * scale.min()).sqrt()
    return scale / centre


def _group_errors(difference: Tensor, blocks: Tensor) -> Tensor:
    """Output error of each group alone.  # (N, G)."""
    num_groups, group_size, _ = blocks.shape
    by_group = difference.reshape(-1, num_groups, group_size).transpose(0, 1)  # (G, N, g)
    return ((by_group @ blocks) * by_group).sum(dim=-1).T
