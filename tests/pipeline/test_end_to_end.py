"""The whole story on one page: every kind of step, run, run again, and run with one change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from biomistral import artifacts
from biomistral.advisory import ADVISORY
from biomistral.models.calibrations import calibration_for
from biomistral.pipeline import Outcome, plan, run_steps
from biomistral.recipe import Recipe
from biomistral.records import Prediction, Score, read_records

pytestmark = pytest.mark.slow  # 20 seconds on one core
Run = Callable[..., list[Outcome]]
PLAIN_MODELS = ("blank", "base", "medical", "slerp", "dare")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("runs") / "small"
    return folder


@pytest.fixture(scope="module")
def run(small: Callable[..., Recipe], root: Path) -> Run:
    def run(*changes: str) -> list[Outcome]:
        return list(run_steps(plan(small(*changes), root), root))

    return run


@pytest.fixture(scope="module")
def first(run: Run) -> list[Outcome]:
    """The first run; all tests here look at what it made."""
    return run()


def _manifests(root: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(
        set(root.glob("*/*")) - set(root.glob("units/*")) - set(root.glob("board/*"))
    ):
        manifest = artifacts.read_manifest(path)
        assert manifest is not None, f"{path} has no manifest"
        yield f"{path.parent.name}/{path.name}", manifest


def test_every_step_is_made_once(first: list[Outcome], root: Path) -> None:
    assert {outcome.verdict.state for outcome in first} == {"new"}
    assert {key for key, _ in _manifests(root)} == {outcome.step.key for outcome in first}


def test_what_calibrates_a_model_lies_beside_it(first: list[Outcome], root: Path) -> None:
    fit = calibration_for(root / "model/medical", "trial", "en")
    assert fit is not None
    manifest = artifacts.read_manifest(root / "predictions/medical")
    assert manifest is not None
    assert manifest["counts"]["validation_predictions"] > 0
    assert fit.temperature > 0


def test_every_artefact_is_whole_and_what_it_says(first: list[Outcome], root: Path) -> None:
    steps = {outcome.step.key: outcome.step for outcome in first}
    for key, manifest in _manifests(root):
        assert manifest["content_sha256"] == artifacts.content_digest(root / key)
        assert manifest["fingerprint"] == steps[key].origin.fingerprint
        assert f"{manifest['kind']}/{manifest['name']}" == key
    assert not list(root.rglob(".*")), "nothing half-made is left"


@pytest.mark.parametrize("name", PLAIN_MODELS)
def test_every_model_opens_with_transformers_alone(
    name: str, first: list[Outcome], root: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(root / "model" / name)
    model = AutoModelForCausalLM.from_pretrained(root / "model" / name)
    inputs = tokenizer("The fever of the valley", return_tensors="pt")
    inputs.pop("token_type_ids", None)
    logits = model(**inputs).logits
    assert logits.shape == (1, inputs["input_ids"].shape[1], len(tokenizer))
    assert logits.isfinite().all()
    assert not list((root / "model" / name).glob("*.bin"))


@pytest.mark.parametrize("name", [*PLAIN_MODELS, "bnb", "awq"])
def test_every_model_card_carries_the_advisory(name: str, first: list[Outcome], root: Path) -> None:
    assert ADVISORY in (root / "model" / name / "README.md").read_text("utf-8")


def test_every_form_of_the_report_carries_the_advisory(first: list[Outcome], root: Path) -> None:
    report = root / "report/report"
    for name in ("index.html", "report.md"):
        assert ADVISORY in (report / name).read_text("utf-8"), name


def test_every_model_answers_every_question_in_both_scorings(
    first: list[Outcome], root: Path
) -> None:
    asked = None
    for name in ("base", "medical", "slerp", "dare", "bnb", "awq", "both"):
        path = root / "predictions" / name / "predictions.parquet"
        rows = list(read_records(path, Prediction))
        assert {row.model for row in rows} == {name}
        these = [(r.question_id, r.task, r.language, r.seed, r.scoring, r.gold) for r in rows]
        asked = asked or these
        assert sorted(these) == sorted(asked)
    assert asked is not None
    assert len(asked) == 2 * 2 * 4 * 2  # tasks, languages, questions, scorings


def test_every_model_is_in_the_scores(first: list[Outcome], root: Path) -> None:
    scores = list(read_records(root / "scores/scores/scores.parquet", Score))
    assert {s.model for s in scores if s.model_kind == "model"} == {
        "base", "medical", "slerp", "dare", "bnb", "awq",
    }  # fmt: skip
    assert {s.model for s in scores if s.model_kind == "ensemble"} == {"both"}
    assert all(0 <= s.value <= 1 for s in scores if s.metric == "accuracy")


def test_no_artefact_tells_where_or_when_it_was_made(
    first: list[Outcome], root: Path, world: Path
) -> None:
    places = (str(root).encode(), str(Path.home()).encode() + b"/")
    for path in root.glob("*/*/**/*"):
        if path.is_file() and path.name != "manifest.json":
            content = path.read_bytes()
            assert not any(place in content for place in places), path


def test_the_second_run_makes_nothing(first: list[Outcome], run: Run) -> None:
    second = run()
    assert [outcome.step.key for outcome in second] == [outcome.step.key for outcome in first]
    assert {outcome.verdict.state for outcome in second} == {"done"}
    assert sum(outcome.seconds for outcome in second) == 0


def test_another_run_of_the_same_recipe_has_the_same_bytes(
    first: list[Outcome], small: Callable[..., Recipe], root: Path, tmp_path: Path
) -> None:
    """Of every step; the report alone would double the time and has a test of its own."""
    other = tmp_path / "small"
    steps = [step for step in plan(small(), other) if step.kind != "report"]
    for outcome in run_steps(steps, other):
        key = outcome.step.key
        assert artifacts.content_digest(other / key) == artifacts.content_digest(root / key), key


def test_one_change_runs_only_what_depends_on_it(first: list[Outcome], run: Run) -> None:
    outcomes = {outcome.step.key: outcome for outcome in run("merge.slerp.t=0.25")}
    changed = {key for key, outcome in outcomes.items() if outcome.verdict.state != "done"}
    own = {"model/slerp", "distances/slerp", "predictions/slerp"}
    assert changed == {*own, "scores/scores", "report/report"}
    assert outcomes["model/slerp"].verdict.reason == "t: 0.5 -> 0.25"
