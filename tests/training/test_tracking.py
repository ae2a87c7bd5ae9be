from __future__ import annotations

import sys
import warnings

import pytest

from biomistral.errors import MissingDependencyError
from biomistral.recipe.settings import PretrainSettings
from biomistral.training import tracking


def settings_of(**changes: object) -> PretrainSettings:
    return PretrainSettings.model_validate({"name": "m", "model": "base", **changes})


@pytest.mark.parametrize("library", ["tensorboard", "wandb"])
def test_a_library_that_is_asked_for_and_missing_is_named_with_its_pip_line(library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    with pytest.raises(MissingDependencyError, match=rf"{library}.*pip install"):
        tracking.Trackers(settings_of(**{library: "here"}))


def test_nothing_is_imported_or_told_when_nothing_is_asked_for():
    trackers = tracking.Trackers(settings_of())
    trackers.tell(1, {"loss": 2.0})
    trackers.close()


def test_tensorboard_is_told_in_the_folder_given_where_it_is_installed(tmp_path):
    pytest.importorskip("tensorboard")
    for name in ("old", "new"):
        trackers = tracking.Trackers(settings_of(), board=tmp_path / "board")
        trackers.tell(1, {f"train/{name}": 2.0})
        trackers.close()
    [left] = (tmp_path / "board").iterdir()  # of the model that is there no more, nothing is
    assert b"train/new" in left.read_bytes()
    resumed = tracking.Trackers(settings_of(), 1, tmp_path / "board")
    resumed.close()
    assert len(list((tmp_path / "board").iterdir())) == 2
    (tmp_path / "board/notes").write_text("mine")
    tracking.Trackers(settings_of(), board=tmp_path / "board").close()
    assert len(list((tmp_path / "board").iterdir())) == 2, "what is no curve stays"
    tracking.Trackers(settings_of(tensorboard=str(tmp_path / "own")), board=tmp_path / "x").close()
    assert [path.name for path in (tmp_path / "own").iterdir()] == ["m"]
    assert not (tmp_path / "x").exists()


def test_where_tensorboard_is_not_installed_that_is_said_once(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    tracking._say_once.cache_clear()
    with pytest.warns(UserWarning, match=r"not installed.*report has the curves.*pip install"):
        tracking.Trackers(settings_of(), board=tmp_path / "board")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tracking.Trackers(settings_of(), board=tmp_path / "board")
    assert list(tmp_path.iterdir()) == []


def test_weights_and_biases_gets_name_settings_and_numbers(monkeypatch):
    class Wandb:
        told: list[object]

        def __init__(self) -> None:
            self.told = []

        def init(self, **facts: object) -> Wandb:
            self.told.append(facts)
            return self

        def log(self, values: object, step: int) -> None:
            self.told.append((step, values))

        def finish(self) -> None:
            self.told.append("done")

    fake = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: object())
    trackers = tracking.Trackers(settings_of(wandb="project"))
    trackers.tell(3, {"train/loss": 1.5})
    trackers.close()
    first, second, third = fake.told
    assert (first["project"], first["name"]) == ("project", "m")
    assert first["config"]["learning_rate"] == 2e-5
    assert (second, third) == ((3, {"train/loss": 1.5}), "done")


def test_energy_is_the_sum_of_the_packages_and_not_of_their_parts(tmp_path, monkeypatch):
    for name, value in (("intel-rapl:0", 5), ("intel-rapl:1", 7), ("intel-rapl:0:0", 100)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{value * 10**6}\n")
    monkeypatch.setattr(tracking, "_RAPL", tmp_path)
    monkeypatch.setattr(tracking, "_gpu_joules", lambda: None)
    assert tracking.energy_joules() == 12
    meter = tracking.Meter()
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text(f"{3605 * 10**6}\n")
    meter.add(640)
    facts = meter.facts()
    assert facts["energy_watt_hours"] == 1.0
    assert facts["tokens"] == 640
    assert facts["tokens_per_second"] > 0


def test_without_counters_no_energy_is_claimed(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "_RAPL", tmp_path / "nothing")
    monkeypatch.setattr(tracking, "_gpu_joules", lambda: None)
    assert tracking.energy_joules() is None
    assert "energy_watt_hours" not in tracking.Meter().facts()
