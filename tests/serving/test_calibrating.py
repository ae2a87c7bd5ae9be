from __future__ import annotations

import math

import pytest

from biomistral.errors import InputError
from biomistral.models import calibrations
from biomistral.models.calibrations import SavedFit
from biomistral.serving.calibrating import Calibration, open_calibration, probabilities


def _fit(language="en", scoring="letter", shots=3, group="medical", temperature=2.0) -> SavedFit:
    tasks = ("medqa",) if group == "medical" else ("towns",)
    return SavedFit(
        group, tasks, language, scoring, shots, temperature, 0.5, -0.5, 100 + shots, "test"
    )


FITS = (_fit(), _fit(shots=0), _fit("fr"), _fit(scoring="cloze"), _fit(group="general"))


@pytest.fixture
def scores(tmp_path):
    """A run's folder of scores with the fits of two models."""
    folder = tmp_path / "run/scores/scores/calibration"
    folder.mkdir(parents=True)
    calibrations.write(folder / "valley.json", "valley", FITS)
    calibrations.write(folder / "hill.json", "hill", FITS[:1])
    return folder.parent


def test_the_fit_of_task_language_scoring_and_nearest_shots_is_found(scores) -> None:
    found = open_calibration("nowhere", "valley", scores)

    def find(task=None, group="medical", language="en", scoring="letter", shots=3):
        return found.find(task=task, group=group, language=language, scoring=scoring, shots=shots)

    assert find() == FITS[0]
    assert find(shots=1) == FITS[1]
    assert find(language="fr", shots=9) == FITS[2]
    assert find(scoring="cloze", task="medqa") == FITS[3]
    assert find(task="towns") == FITS[4]
    assert find(task="other") is None
    assert find(language="de") is None
    assert found.usual() == ("letter", 3)
    assert found.words() == "medical letter in en, fr; medical cloze in en; general letter in en"


@pytest.mark.parametrize("place", ["", "calibration", "calibration/valley.json", "../.."])
def test_it_is_found_by_file_folder_or_run(scores, place) -> None:
    found = open_calibration("nowhere", "valley", (scores / place).resolve())
    assert found.fits == FITS


def test_what_lies_beside_the_model_is_its_own_whatever_it_is_called(tmp_path) -> None:
    calibrations.write(tmp_path / "calibration.json", "its old name", FITS[:1])
    assert open_calibration(str(tmp_path), "new name", None).fits == FITS[:1]
    (tmp_path / "calibration.json").unlink()
    assert open_calibration(str(tmp_path), "new name", None) is None


def test_a_calibration_of_another_model_is_refused(scores) -> None:
    with pytest.raises(InputError, match="calibrates the model 'hill', and the one served is 'va"):
        open_calibration("nowhere", "valley", scores / "calibration/hill.json")


def test_a_place_without_one_says_which_there_are(scores, tmp_path) -> None:
    with pytest.raises(InputError, match="no calibration of the model 'dale'; there are hill, val"):
        open_calibration("nowhere", "dale", scores)
    with pytest.raises(InputError, match="is not there"):
        open_calibration("nowhere", "dale", tmp_path / "nothing")


def test_a_broken_file_is_refused_by_name(tmp_path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text("{")
    with pytest.raises(InputError, match=r"calibration.json: is no calibration file"):
        open_calibration(str(tmp_path), "valley", None)


def test_probabilities_are_of_the_options_among_themselves() -> None:
    found = probabilities([math.log(0.1), math.log(0.3)])
    assert found == pytest.approx([0.25, 0.75])
    assert Calibration(None, ()).usual() == ("letter", 0)
