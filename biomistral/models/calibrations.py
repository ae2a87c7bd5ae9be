"""What is saved beside a model so that its confidence means what it says: ``calibration.json``.

Scoring writes it (``evaluation.calibration`` fits what is in it), evaluation and serving read it. One
line of it, a ``SavedFit``, is for some tasks in one language, one scoring and one number of shots; it
turns the log-probabilities of one question's choices into calibrated probabilities:

    temperature   softmax of the log-probabilities over ``temperature``
    platt         the answer's probability c becomes sigmoid(slope * logit(c) + intercept); the other
                  choices share the rest as before

Neither changes which choice is the answer, except that Platt's scaling may leave it less than another
has: it then says that the model is mostly wrong. Format: docs/formats.md. Knows nothing about how fits
are found, and loads nothing heavy.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from biomistral.artifacts import CALIBRATION
from biomistral.errors import InputError

FORMAT = "biomistral-calibration-1"
Method = Literal["temperature", "platt"]
_SURE = 1e-12  # confidences are kept this far from 0 and 1


@dataclass(frozen=True, slots=True)
class SavedFit:
    """A fit, and for what it is meant."""

    group: str  # of tasks
    tasks: tuple[str, ...]  # whose answers it was fitted on
    language: str
    scoring: str
    shots: int
    temperature: float
    slope: float
    intercept: float
    num_answers: int  # it was fitted on
    fitted_on: str  # "validation", or "test" where the numbers of the report are cross-fitted

    def probabilities(
        self, logprobs: Sequence[float], method: Method = "temperature"
    ) -> tuple[float, ...]:
        """Calibrated probabilities of one question's choices, of sum 1, in their order.

        ``logprobs`` are finite natural logarithms; they need not sum to one.
        """
        if method == "temperature" or len(logprobs) == 1:
            return _softmax([value / self.temperature for value in logprobs])
        before = _softmax(logprobs)
        top = max(range(len(before)), key=lambda index: logprobs[index])
        rest = min(max(1 - before[top], _SURE), 1 - _SURE)
        line = self.slope * math.log((1 - rest) / rest) + self.intercept
        confidence = 0.5 * (1 + math.tanh(0.5 * line))
        if len(before) == 1:
            return (1.0,)
        others = _softmax([value for index, value in enumerate(logprobs) if index != top])
        shared = [(1 - confidence) * share for share in others]
        return (*shared[:top], confidence, *shared[top:])


def calibration_for(
    place: Path,
    task: str | None = None,
    language: str = "en",
    *,
    scoring: str = "letter",
    shots: int | None = None,
) -> SavedFit | None:
    """Find what calibrates a model's answers; None where nothing that was saved is meant for them.

    ``place`` is a model's folder (its ``calibration.json``, if there is one) or such a file. The fit
    is of the same language and scoring, and of the task if one is given; of several the one with the
    nearest number of shots counts, then that with the most answers.

    Raises ``InputError`` if the file is broken, or ``place`` is a file that is not there.
    """
    path = place / CALIBRATION if place.is_dir() else place
    if place.is_dir() and not path.is_file():
        return None
    return choose(read(path)[1], task, language, scoring, shots)


def choose(
    fits: Sequence[SavedFit], task: str | None, language: str, scoring: str, shots: int | None
) -> SavedFit | None:
    """Choose among fits as ``calibration_for`` does."""
    meant = [
        fit
        for fit in fits
        if (fit.language, fit.scoring) == (language, scoring) and (not task or task in fit.tasks)
    ]

    def rank(fit: SavedFit) -> tuple[int, int]:
        return (0 if shots is None else abs(fit.shots - shots), -fit.num_answers)

    return min(meant, key=rank, default=None)


def write(path: Path, model: str, fits: Sequence[SavedFit]) -> None:
    """Keep the fits of one model, whole or not at all."""
    content = {"format": FORMAT, "model": model, "fits": [asdict(each) for each in fits]}
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    draft.replace(path)


def read(path: Path) -> tuple[str, list[SavedFit]]:
    """Read the model's name and its fits. Raises ``InputError`` if ``path`` is no such file."""
    try:
        return _parsed(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: is no calibration file ({error}); wanted is JSON of the format {FORMAT}, as "
            "scoring writes it"
        ) from None


def _parsed(content: Any) -> tuple[str, list[SavedFit]]:
    if content["format"] != FORMAT:
        raise ValueError(f"format {content['format']!r}")
    fits = [_fit(line) for line in content["fits"]]
    return str(content["model"]), fits


def _fit(line: Mapping[str, Any]) -> SavedFit:
    kinds = {"str": str, "int": int, "float": float, "tuple[str, ...]": tuple}
    fields = SavedFit.__dataclass_fields__.values()
    found = SavedFit(**{field.name: kinds[str(field.type)](line[field.name]) for field in fields})
    if not all(map(math.isfinite, (found.temperature, found.slope, found.intercept))):
        raise ValueError("a number that is not finite")
    if found.temperature <= 0:
        raise ValueError("a temperature that is not above 0")
    return found


def _softmax(values: Sequence[float]) -> tuple[float, ...]:
    highest = max(values)
    powers = [math.exp(value - highest) for value in values]
    total = math.fsum(powers)
    return tuple(power / total for power in powers)
