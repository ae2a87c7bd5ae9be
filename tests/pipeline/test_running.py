from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from biomistral import artifacts
from biomistral.artifacts import Origin
from biomistral.errors import InputError
from biomistral.pipeline import Step, run_steps, select
from biomistral.progress import Progress


def _step(
    key: str,
    needs: Sequence[str] = (),
    *,
    size: int = 1,
    missing: Sequence[str] = (),
    section: str = "",
) -> Step:
    kind, name = key.split("/")

    def make(out: Path, origin: Origin, progress: Progress) -> None:
        progress(1, 1, "letters")
        with artifacts.create(out, origin) as draft:
            (draft.folder / "letters.txt").write_text("a" * size)

    origin = Origin(kind, name, {"size": size}, dict.fromkeys(needs, "1"))  # type: ignore[arg-type]
    return Step(kind, name, origin, tuple(needs), make, section, tuple(missing))  # type: ignore[arg-type]


STEPS = [
    _step("tokens/c", section="corpus[0]"),
    _step("model/a", ["tokens/c"], section="pretrain"),
    _step("model/b", section="merge"),
    _step("model/blank", section="models.blank"),
    _step("predictions/a", ["model/a"]),
    _step("scores/scores", ["predictions/a"]),
]


# --- select ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("only", "kept"),
    [
        ([], [step.key for step in STEPS]),
        (["b"], ["model/b"]),
        (["model/a"], ["tokens/c", "model/a"]),
        (["a"], ["tokens/c", "model/a", "predictions/a"]),
        (["model"], ["tokens/c", "model/a", "model/b", "model/blank"]),
        (["merge"], ["model/b"]),
        (["corpus"], ["tokens/c"]),
        (["corpus[0]"], ["tokens/c"]),
        (["models"], ["model/blank"]),
        (["b", "c"], ["tokens/c", "model/b"]),
        (["scores"], ["tokens/c", "model/a", "predictions/a", "scores/scores"]),
    ],
)
def test_only_keeps_the_named_steps_and_what_they_need(only: list[str], kept: list[str]) -> None:
    assert [step.key for step in select(STEPS, only)] == kept


def test_a_name_that_no_step_has_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError) as caught:
        select(STEPS, ["b", "modle/b"])
    assert 'no step is called so; did you mean "model/b"?' in str(caught.value)
    assert "tokens/c, model/a, model/b" in str(caught.value)


# --- run ------------------------------------------------------------------------------------------


def test_steps_are_made_in_order_and_skipped_the_next_time(tmp_path: Path) -> None:
    first = list(run_steps(STEPS, tmp_path))
    assert [outcome.step.key for outcome in first] == [step.key for step in STEPS]
    assert {outcome.verdict.state for outcome in first} == {"new"}
    assert all(outcome.seconds > 0 for outcome in first)
    assert all(outcome.size_bytes > 1 for outcome in first)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    second = list(run_steps(STEPS, tmp_path))
    assert {outcome.verdict.state for outcome in second} == {"done"}
    assert {outcome.seconds for outcome in second} == {0.0}
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_changed_step_replaces_what_is_there(tmp_path: Path) -> None:
    list(run_steps([_step("model/b")], tmp_path))
    (outcome,) = run_steps([_step("model/b", size=5)], tmp_path)
    assert outcome.verdict.reason == "size: 1 -> 5"
    assert (tmp_path / "model/b/letters.txt").read_text() == "aaaaa"


def test_all_that_is_missing_is_told_before_the_first_step(tmp_path: Path) -> None:
    steps = [
        _step("tokens/c"),
        _step("model/a", missing=["a.xml is gone", "b.xml is gone"]),
        _step("model/b", missing=["b.xml is gone", "c.xml is gone"]),
    ]
    with pytest.raises(InputError) as caught:
        next(run_steps(steps, tmp_path))
    for name in "abc":
        assert str(caught.value).count(f"{name}.xml is gone") == 1
    assert list(tmp_path.iterdir()) == []


def test_one_missing_thing_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        next(run_steps([_step("model/a", missing=["a.xml is gone"])], tmp_path))
    assert str(caught.value) == "a.xml is gone"


def test_what_is_made_already_misses_nothing(tmp_path: Path) -> None:
    list(run_steps([_step("model/a")], tmp_path))
    (outcome,) = run_steps([_step("model/a", missing=["a.xml is gone"])], tmp_path)
    assert outcome.verdict.state == "done"


def test_steps_before_an_error_stay(tmp_path: Path) -> None:
    def fail(*_: object) -> None:
        raise InputError("no")

    origin = Origin("model", "bad", {})
    steps = [_step("tokens/c"), Step("model", "bad", origin, (), fail), _step("model/b")]
    with pytest.raises(InputError, match="no"):
        list(run_steps(steps, tmp_path))
    assert artifacts.read_manifest(tmp_path / "tokens/c") is not None
    assert not (tmp_path / "model").exists()


def test_each_step_has_its_own_listener(tmp_path: Path) -> None:
    heard: list[tuple[str, float, str]] = []

    def progress_of(step: Step) -> Progress:
        return lambda done, _, text: heard.append((step.key, done, text))

    list(run_steps(STEPS[:2], tmp_path, progress_of=progress_of))
    assert heard == [("tokens/c", 1, "letters"), ("model/a", 1, "letters")]
