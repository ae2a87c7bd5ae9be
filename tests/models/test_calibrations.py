from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from biomistral import artifacts
from biomistral.errors import InputError
from biomistral.evaluation import calibration, metrics
from biomistral.models import calibrations
from biomistral.models.calibrations import SavedFit, calibration_for
from biomistral.models.identity import model_digest

FIT = SavedFit("medical", ("anatomy",), "en", "letter", 3, 1.5, 0.7, -0.1, 900, "test")


def test_what_is_written_is_read(tmp_path):
    calibrations.write(tmp_path / "c.json", "one", [FIT])
    assert calibrations.read(tmp_path / "c.json") == ("one", [FIT])
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": "other"}, "format 'other'"),
        ({"fits": [{"group": "medical"}]}, "'tasks'"),
        ({"fits": 3}, "not iterable"),
        ({"fits": [{**dataclasses.asdict(FIT), "temperature": -1}]}, "temperature that is not"),
        ({"fits": [{**dataclasses.asdict(FIT), "temperature": 0}]}, "temperature that is not"),
        ({"fits": [{**dataclasses.asdict(FIT), "slope": float("nan")}]}, "not finite"),
    ],
)
def test_another_file_is_refused(tmp_path, change, reason):
    path = tmp_path / "c.json"
    content = {"format": calibrations.FORMAT, "model": "m", "fits": [], **change}
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"is no calibration file.*{reason}"):
        calibrations.read(path)


@pytest.mark.parametrize("method", calibration.METHODS)
def test_probabilities_are_those_that_evaluation_measures(method):
    rows = np.log(np.random.default_rng(1).dirichlet(np.ones(4), size=50))
    if method == "temperature":
        measured = calibration.at_temperature(rows, FIT.temperature)
    else:
        measured = calibration.by_platt(rows, FIT.slope, FIT.intercept)
    found = [FIT.probabilities(row.tolist(), method) for row in rows]
    assert np.allclose(found, metrics.renormalised(measured), atol=1e-12)
    assert np.allclose(np.sum(found, axis=1), 1)


@pytest.mark.parametrize("method", calibration.METHODS)
def test_extremes_have_probabilities(method):
    assert FIT.probabilities([-0.5], method) == (1.0,)
    for row in ([0.0, -10_000.0], [-700.0, -700.0, -700.0]):
        found = FIT.probabilities(row, method)
        assert sum(found) == pytest.approx(1)
        assert np.argmax(found) == 0


def test_of_several_fits_the_one_that_is_meant_is_found(tmp_path):
    fits = [
        FIT,
        dataclasses.replace(FIT, shots=0, num_answers=50),
        dataclasses.replace(FIT, group="general", tasks=("truth",), shots=0, num_answers=2000),
        dataclasses.replace(FIT, language="fr", scoring="cloze"),
    ]
    calibrations.write(tmp_path / artifacts.CALIBRATION, "one", fits)
    assert calibration_for(tmp_path, "anatomy", "en") == fits[0]
    assert calibration_for(tmp_path, "anatomy", "en", shots=1) == fits[1]
    assert calibration_for(tmp_path, None, "en") == fits[2]
    assert calibration_for(tmp_path, None, "en", shots=5) == fits[0]
    assert calibration_for(tmp_path, "anatomy", "fr", scoring="cloze") == fits[3]
    assert calibration_for(tmp_path / artifacts.CALIBRATION, "truth", "en") == fits[2]


def test_nothing_else_is_taken_for_it(tmp_path):
    assert calibration_for(tmp_path, "anatomy", "en") is None
    calibrations.write(tmp_path / artifacts.CALIBRATION, "one", [FIT])
    for task, language, scoring in (
        ("x", "en", "letter"),
        (None, "de", "letter"),
        (None, "en", "cloze"),
    ):
        assert calibration_for(tmp_path, task, language, scoring=scoring) is None
    with pytest.raises(InputError, match="no calibration file"):
        calibration_for(tmp_path / "absent.json")


def test_a_model_is_the_same_model_with_it(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    marks = (model_digest, lambda f: artifacts.fingerprint_of_files([f]), artifacts.content_digest)
    before = [mark(tmp_path) for mark in marks]
    calibrations.write(tmp_path / artifacts.CALIBRATION, "one", [FIT])
    assert [mark(tmp_path) for mark in marks] == before
