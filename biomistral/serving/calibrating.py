"""Which calibration belongs to the model that is served, and to a question.

Files are those that scoring writes (``models.calibrations``): beside a model, or under its name in a
folder of scores. A fit holds for tasks, language and scoring; of several numbers of shots the nearest
is taken, and replies say which.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from biomistral import artifacts
from biomistral.errors import InputError
from biomistral.evaluation.scores import CALIBRATION as FOLDER
from biomistral.evaluation.scores import calibration_file
from biomistral.models import calibrations
from biomistral.models.calibrations import SavedFit


@dataclass(frozen=True)
class Calibration:
    """The fits of one model, and the file they are from."""

    path: Path
    fits: tuple[SavedFit, ...]

    def find(
        self, *, task: str | None, group: str, language: str, scoring: str, shots: int
    ) -> SavedFit | None:
        """The fit for questions of a task, or of a group of tasks if none is named; or None."""
        fitting = [
            fit
            for fit in self.fits
            if (fit.language, fit.scoring) == (language, scoring)
            and (task in fit.tasks if task else group == fit.group)
        ]
        return min(
            fitting, key=lambda fit: (abs(fit.shots - shots), -fit.num_answers), default=None
        )

    def words(self) -> str:
        """What there are fits for."""
        languages: dict[str, set[str]] = {}
        for fit in self.fits:
            languages.setdefault(f"{fit.group} {fit.scoring}", set()).add(fit.language)
        kinds = (f"{kind} in {', '.join(sorted(there))}" for kind, there in languages.items())
        return "; ".join(kinds) or "nothing"

    def usual(self) -> tuple[str, int]:
        """The scoring and number of shots of most fits."""
        kinds = Counter((fit.scoring, fit.shots) for fit in self.fits)
        return kinds.most_common(1)[0][0] if kinds else ("letter", 0)


def open_calibration(model: str, name: str, place: Path | None) -> Calibration | None:
    """Read what calibrates a model: at ``place``, or beside the model; None if there is nothing.

    ``place`` is a file, a folder of scores, or that of a run. Raises ``InputError`` if it has nothing
    for this model, or a file is broken or of a model of another name.
    """
    if place is None:
        path = Path(model) / artifacts.CALIBRATION
        return Calibration(path, tuple(calibrations.read(path)[1])) if path.is_file() else None
    path = place if place.is_file() else _in_folder(place, name)
    of, fits = calibrations.read(path)
    if of != name and path.name != artifacts.CALIBRATION:
        raise InputError(
            f"{path}: calibrates the model {of!r}, and the one served is {name!r}; name its own "
            f"file, or say --name {of} if it is the same model under another name"
        )
    return Calibration(path, tuple(fits))


def probabilities(logprobs: Sequence[float]) -> tuple[float, ...]:
    """Of the options among themselves, from log-probabilities: they sum to 1."""
    return _IDENTITY.probabilities(logprobs)


_IDENTITY = SavedFit("", (), "", "", 0, 1.0, 1.0, 0.0, 0, "")


def _in_folder(place: Path, name: str) -> Path:
    if not place.exists():
        raise InputError(
            f"--calibration {place}: is not there; name a calibration file, or a folder of scores"
        )
    folders = [place, *sorted(place.glob("scores/*"))]  # scores themselves, or a run
    tried = [calibration_file(folder, name) for folder in folders]
    tried += [place / tried[0].name, place / artifacts.CALIBRATION]
    found = [path for path in tried if path.is_file()]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"--calibration {place}: has {len(found)} calibrations of {name}; name one of "
            f"{', '.join(map(str, found))}"
        )
    there = sorted(path.stem for folder in folders for path in folder.glob(f"{FOLDER}/*.json"))
    raise InputError(
        f"--calibration {place}: has no calibration of the model {name!r}; there are "
        f"{', '.join(there) or 'none'}; scoring writes one for each model that was evaluated"
    )
