"""Which calibration belongs to a model and a question, and what it makes of the probabilities.

Files are those that scoring writes (``evaluation.calibration``). A fit holds for one group of tasks,
language and scoring; of several numbers of shots the nearest is taken, and the reply says which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from biomistral.errors import InputError
from biomistral.evaluation import calibration
from biomistral.evaluation.calibration import SavedFit
from biomistral.evaluation.scores import CALIBRATION, calibration_file

Method = Literal["temperature", "platt"]


@dataclass(frozen=True)
class Calibration:
    """The fits of one model, and the file they are from."""

    path: Path
    model: str
    fits: tuple[SavedFit, ...]

    def find(self, *, group: str, language: str, scoring: str, shots: int) -> SavedFit | None:
        """The fit for such questions, or None."""
        fitting = [
            fit
            for fit in self.fits
            if (fit.group, fit.language, fit.scoring) == (group, language, scoring)
        ]
        return min(fitting, key=lambda fit: (abs(fit.shots - shots), fit.shots), default=None)

    def words(self) -> str:
        """What there are fits for."""
        there = sorted({f"{fit.group}/{fit.language}/{fit.scoring}" for fit in self.fits})
        return ", ".join(there) or "nothing"


def open_calibration(place: Path, model: str) -> Calibration:
    """Read the calibration of a model: a file, or the one under its name in a folder of scores.

    Raises ``InputError`` if there is none, or the file is of another model.
    """
    path = place if place.is_file() else _in_folder(place, model)
    name, fits = calibration.read(path)
    if name != model:
        raise InputError(
            f"{path}: calibrates the model {name!r}, and the one served is {model!r}; name its own "
            f"file, or say --name {name} if it is the same model under another name"
        )
    return Calibration(path, name, tuple(fits))


def of_run(model: Path, name: str) -> Path | None:
    """Where the run that made a model keeps its calibration; None if it is of no run or has none."""
    run = model.resolve().parent.parent
    if model.resolve().parent.name != "model":
        return None
    there = [calibration_file(scores, name) for scores in sorted(run.glob("scores/*"))]
    found = [path for path in there if path.is_file()]
    return found[0] if len(found) == 1 else None


def probabilities(logprobs: Sequence[float]) -> list[float]:
    """Of the options among themselves, from log-probabilities: they sum to 1."""
    values = np.array(logprobs, dtype=np.float64)
    weights = np.exp(values - values.max())
    return [float(value) for value in weights / weights.sum()]


def calibrated(logprobs: Sequence[float], fit: SavedFit, method: Method) -> list[float]:
    """The same, calibrated by a fit: they sum to 1, and the likeliest stays the likeliest.

    (With Platt scaling only where the fit's slope is above 0, as it is unless a model is worse the
    surer it is.)
    """
    values = np.array(logprobs, dtype=np.float64)
    if method == "temperature":
        return probabilities(list(calibration.at_temperature(values, fit.temperature)))
    return probabilities(list(calibration.by_platt(values, fit.slope, fit.intercept)))


def _in_folder(place: Path, model: str) -> Path:
    if not place.exists():
        raise InputError(
            f"--calibration {place}: is not there; name a calibration file, or a folder of scores"
        )
    folders = [place, *sorted(place.glob("scores/*"))]  # scores themselves, or a run
    tried = [calibration_file(folder, model) for folder in folders]
    tried.append(place / tried[0].name)  # the folder of the files
    found = [path for path in tried if path.is_file()]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"--calibration {place}: has {len(found)} calibrations of {model}; name one of "
            f"{', '.join(map(str, found))}"
        )
    there = sorted(path.stem for folder in folders for path in folder.glob(f"{CALIBRATION}/*.json"))
    raise InputError(
        f"--calibration {place}: has no calibration of the model {model!r}; there are "
        f"{', '.join(there) or 'none'}; scoring writes one for each model that was evaluated"
    )
