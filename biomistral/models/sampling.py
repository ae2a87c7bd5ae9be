"""From the logits behind a text to its next token: temperature, nucleus and the rest.

The order is that of Transformers: repetition penalty, temperature, then ``top_k``, ``top_p`` and
``min_p``, each on what the one before left. A token is drawn with one number of the sequence's own
generator, so neither the company of a sequence nor its past draws matter to another. Knows nothing
about models or texts.

Shapes: V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biomistral.errors import InputError, ModelError

# With this many tokens or fewer in the running, none is sorted that need not be.
_USUALLY_ENOUGH = 1024
_MOST_LOGPROBS = 100


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is drawn and where it ends. Raises ``InputError`` for values out of range."""

    max_new_tokens: int = 512
    temperature: float = 0.0  # 0: always the most probable token
    top_p: float = 1.0  # keep the most probable tokens that together have this probability
    top_k: int = 0  # keep so many tokens; 0: all
    min_p: float = 0.0  # keep tokens at least this probable, as a fraction of the most probable one
    repetition_penalty: float = 1.0  # of tokens that prompt or answer have already; above 1: fewer
    seed: int | None = None  # None: another answer each time
    stop: tuple[str, ...] = ()  # texts that end the answer and are not part of it
    logprobs: int = 0  # how many alternatives to list for each token
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        ranges = {
            "max_new_tokens": (self.max_new_tokens >= 1, "1 or more"),
            "temperature": (0 <= self.temperature <= 100, "0 to 100"),
            "top_p": (0 < self.top_p <= 1, "above 0, at most 1"),
            "top_k": (self.top_k >= 0, "0 (all) or more"),
            "min_p": (0 <= self.min_p <= 1, "0 to 1"),
            "repetition_penalty": (0 < self.repetition_penalty <= 100, "above 0, at most 100"),
            "seed": (self.seed is None or self.seed >= 0, "0 or more"),
            "logprobs": (0 <= self.logprobs <= _MOST_LOGPROBS, f"0 to {_MOST_LOGPROBS}"),
        }
        for name, (is_allowed, allowed) in ranges.items():
            if not is_allowed:
                raise InputError(f"sampling: {name} is {getattr(self, name)}; allowed is {allowed}")
        stop: object = self.stop  # perhaps one text, which is a row of texts, too
        if not isinstance(stop, tuple) or not all(stop):
            raise InputError(
                f"sampling: stop is {stop!r}; wanted are texts of one character or more"
            )


@dataclass(frozen=True, slots=True)
class Choice:
    """A token, its log-probability and those of the most probable ones, by the bare model."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...]  # (token id, log-probability), most probable first


class Sampler:
    """Choose the tokens of one sequence."""

    def __init__(self, sampling: Sampling, prompt: Sequence[int]) -> None:
        self._sampling = sampling
        self._generator = np.random.default_rng(sampling.seed)
        self._seen = set(prompt) if sampling.repetition_penalty != 1 else set()

    def choose(self, logits: NDArray[np.float32]) -> Choice:
        """Choose by logits (V,), which stay as they are.

        Raises ``ModelError`` if they hold NaN or plus infinity, or nothing finite.
        """
        highest = float(logits.max())
        if not math.isfinite(highest):  # the maximum is NaN if any is
            raise ModelError(
                f"the model gave {'NaN' if math.isnan(highest) else 'no finite number'} for the next "
                "token; its weights are broken, or it is run in too low a precision: try float32"
            )
        token = self._token(logits)
        if self._sampling.repetition_penalty != 1:
            self._seen.add(token)
        total = highest + math.log(float(np.exp(logits - highest).sum(dtype=np.float64)))
        top = [
            (int(index), float(logits[index]) - total)
            for index in _largest(logits, self._sampling.logprobs)
        ]
        return Choice(token, float(logits[token]) - total, tuple(top))

    def _token(self, logits: NDArray[np.float32]) -> int:
        if self._seen:
            logits = self._penalized(logits)
        if self._sampling.temperature == 0:
            return int(logits.argmax())
        kept, probabilities = _kept(logits, self._sampling)
        ends = probabilities.cumsum()
        place = int(ends.searchsorted(self._generator.random() * ends[-1], side="right"))
        return int(kept[min(place, len(kept) - 1)])

    def _penalized(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Divide positive logits of tokens seen by the penalty, multiply negative ones."""
        penalty = self._sampling.repetition_penalty
        seen = np.fromiter(self._seen, np.int64, len(self._seen))
        logits = logits.copy()
        logits[seen] = np.where(logits[seen] > 0, logits[seen] / penalty, logits[seen] * penalty)
        return logits


def _kept(
    logits: NDArray[np.float32], sampling: Sampling
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the tokens that may be drawn, and their weights."""
    scaled = logits.astype(np.float64) / sampling.temperature
    weights = np.exp(scaled - scaled.max())  # (V,), 1 for the most probable token
    if not sampling.top_k and sampling.top_p == 1 and not sampling.min_p:
        return np.arange(len(weights)), weights
    order = _largest(weights, sampling.top_k or _USUALLY_ENOUGH)
    enough = sampling.top_p * (weights[order] if sampling.top_k else weights).sum()
    if not sampling.top_k and weights[order].sum() < enough:
        order = _largest(weights, len(weights))
    kept = weights[order]
    before = kept.cumsum() - kept  # 0 for the first, so one is always left
    order = order[(before < enough) & (kept >= sampling.min_p)]
    return order, weights[order]


def _largest(values: NDArray[Any], number: int) -> NDArray[np.intp]:
    """Places of the ``number`` largest values, largest first; of equals the first."""
    number = min(number, len(values))
    if number == 0:
        return np.empty(0, np.intp)
    if number == len(values):
        return np.argsort(-values, kind="stable")
    least = np.partition(values, len(values) - number)[len(values) - number]
    above = np.flatnonzero(values > least)
    equal = np.flatnonzero(values == least)[: number - len(above)]
    chosen = np.sort(np.concatenate([above, equal]))
    return chosen[np.argsort(-values[chosen], kind="stable")]
