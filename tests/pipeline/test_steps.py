from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from biomistral import artifacts
from biomistral.artifacts import Origin
from biomistral.pipeline import Step, judge
from biomistral.pipeline.steps import board_of


def _step(settings: dict[str, Any], inputs: dict[str, str] | None = None, version: int = 1) -> Step:
    origin = Origin("model", "m", settings, inputs or {}, version)
    return Step("model", "m", origin, (), lambda *_: None)


def _make(step: Step, root: Path) -> None:
    with artifacts.create(root / step.key, step.origin):
        pass


def test_the_key_is_the_place_below_the_root() -> None:
    assert _step({}).key == "model/m"


def test_what_is_not_there_is_new(tmp_path: Path) -> None:
    assert judge(_step({}), tmp_path).state == "new"
    (tmp_path / "model/m").mkdir(parents=True)
    assert judge(_step({}), tmp_path).state == "new", "an empty folder is no artefact"


def test_what_was_made_of_the_same_is_done(tmp_path: Path) -> None:
    _make(_step({"t": 0.5}, {"a": "1"}), tmp_path)
    assert judge(_step({"t": 0.5}, {"a": "1"}), tmp_path).state == "done"


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (_step({"t": 0.25}, {"a": "1"}), "t: 0.5 -> 0.25"),
        (_step({}, {"a": "1"}), "t: 0.5 -> unset"),
        (_step({"t": 0.5, "s": 1}, {"a": "1"}), "s: unset -> 1"),
        (_step({"t": 0.5}, {"a": "2"}), "input a"),
        (_step({"t": 0.5}, {"b": "1"}), "input a, b"),
        (_step({"t": 1}, {"a": "2"}), "t: 0.5 -> 1; input a"),
        (_step({"t": 1}, {"a": "2"}, version=2), "this version makes it differently"),
        (_step({"t": "x" * 99}, {"a": "1"}), f"t: 0.5 -> {'x' * 37}..."),
    ],
)
def test_what_changed_is_said_in_a_few_words(step: Step, reason: str, tmp_path: Path) -> None:
    _make(_step({"t": 0.5}, {"a": "1"}), tmp_path)
    verdict = judge(step, tmp_path)
    assert (verdict.state, verdict.reason) == ("changed", reason)


def test_curves_lie_in_the_folder_of_the_run_by_the_name_of_the_model() -> None:
    assert board_of(Path("runs/x/adapter/tuned")) == Path("runs/x/board/tuned")
