"""The steps of tuning in a plan, and a run of them that ends in a model and a report."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from biomistral import artifacts, versions
from biomistral.errors import InputError
from biomistral.models.adapters import is_adapter
from biomistral.pipeline import plan, run_steps
from biomistral.pipeline.running import TRAINED
from biomistral.pipeline.tuning import section_of
from biomistral.recipe import parse_recipe

RECIPE = """
name: tuned
models: {{base: {{path: {model}}}}}
sft:
  - name: taught
    model: base
    questions: [towns]
    answer: text
    epochs: 0.2
    sequence_length: 128
    precision: float32
    {sft}
dpo:
  - name: preferring
    model: taught
    questions: [towns]
    answer: text
    epochs: 0.2
    sequence_length: 128
    precision: float32
    {dpo}
benchmark: {{data: {world}/benchmark}}
evaluate:
  models: [base, taught{also}]
  tasks: [towns]
  limit: 3
  shots: 0
  seeds: [1]
  scoring: cloze
  precision: float32
"""


@pytest.fixture
def recipe_of(tiny_model, miniature_world):
    def make(sft: str = "", dpo: str = "", also: str = ", preferring"):
        return parse_recipe(
            RECIPE.format(model=tiny_model, world=miniature_world, sft=sft, dpo=dpo, also=also)
        )

    return make


def test_an_adapter_is_three_steps_and_what_follows_needs_the_model(recipe_of, tmp_path):
    steps = {step.key: step for step in plan(recipe_of(), tmp_path)}
    order = list(steps)
    assert steps["adapter/taught"].needs == ("questions/taught-training",)
    assert steps["model/taught"].needs == ("adapter/taught",)
    assert set(steps["adapter/preferring"].needs) == {
        "model/taught",
        "questions/preferring-training",
    }
    assert order.index("model/taught") < order.index("adapter/preferring")
    assert {"adapter/taught", "adapter/preferring"} <= set(steps["report/report"].needs)
    assert [steps[f"adapter/{name}"].section for name in ("taught", "preferring")] == ["sft", "dpo"]


def test_only_the_training_itself_can_be_shared_by_processes(recipe_of, tmp_path):
    steps = plan(recipe_of(dpo="method: full"), tmp_path)
    shared = {step.key for step in steps if step.code in TRAINED}
    assert shared == {"adapter/taught", "model/preferring"}


def test_full_tuning_makes_a_model_at_once(recipe_of, tmp_path):
    recipe = recipe_of(sft="method: full")
    keys = {step.key for step in plan(recipe, tmp_path)}
    assert "model/taught" in keys
    assert "adapter/taught" not in keys
    assert section_of(recipe.sft[0]) == "sft"


def test_an_adapter_alone_is_no_model(recipe_of, tmp_path):
    recipe = recipe_of(dpo="merge_adapter: false", also="")
    keys = {step.key for step in plan(recipe, tmp_path)}
    assert "adapter/preferring" in keys
    assert "model/preferring" not in keys


def test_settings_that_change_what_comes_out_change_the_fingerprint(recipe_of, tmp_path):
    def marks(**changes: str) -> dict[str, str]:
        return {s.key: s.origin.fingerprint for s in plan(recipe_of(**changes), tmp_path)}

    before, after = marks(), marks(sft="jeffreys_weight: 0.1")
    changed = {key for key in before if before[key] != after[key]}
    assert {"adapter/taught", "model/taught", "adapter/preferring"} <= changed
    assert "questions/taught-training" not in changed
    assert marks(sft="save_every_steps: 7") == before


def test_files_that_are_not_there_are_missing_and_no_error(recipe_of, tmp_path):
    recipe = recipe_of(sft="data: [nowhere.jsonl]")
    [step] = [step for step in plan(recipe, tmp_path) if step.key == "adapter/taught"]
    assert step.missing == ("nowhere.jsonl: there is no such file; name files of JSON lines",)
    assert "questions/benchmark" in step.needs  # what the file may not hold


def test_a_wrong_line_is_told_before_the_first_step(recipe_of, tmp_path):
    (tmp_path / "chat.jsonl").write_text('{"messages": []}\n')
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "b"}\n')
    recipe = recipe_of(
        sft=f"data: [{tmp_path / 'chat.jsonl'}]", dpo=f"pairs: [{tmp_path / 'pairs.jsonl'}]"
    )
    steps = plan(recipe, tmp_path / "run")
    with pytest.raises(InputError) as caught:
        next(run_steps(steps, tmp_path / "run"))
    assert "chat.jsonl, line 1: messages is []; a list of messages is due" in str(caught.value)
    assert "pairs.jsonl, line 1: chosen and rejected are the same" in str(caught.value)


@pytest.mark.slow
def test_a_run_tunes_merges_measures_and_reports(recipe_of, tmp_path):
    root = tmp_path / "run"
    steps = plan(recipe_of(), root)
    for _ in run_steps(steps, root):
        pass
    assert is_adapter(root / "adapter/taught")
    card = json.loads((root / "model/taught/card.json").read_text())
    assert (card["relation"], card["base_models"]) == ("finetune", ["base"])
    assert "merged into its base" in card["description"]
    report = (root / "report/report/report.md").read_text()
    assert "taught" in report
    assert "preferring" in report
    for key in ("adapter/taught", "adapter/preferring"):
        assert artifacts.read_manifest(root / key)["counts"]["steps"] >= 1
    assert all(outcome.verdict.state == "done" for outcome in run_steps(steps, root))
    assert not list(Path(root).rglob(".*partial"))
    if importlib.util.find_spec("tensorboard"):
        assert [f.name for f in sorted(root.glob("board/*"))] == ["preferring", "taught"]
        assert len(list(root.glob("board/taught/events.*"))) == 1


@pytest.mark.slow
def test_the_merged_model_is_the_model_with_its_adapter(recipe_of, tiny_model, tmp_path):
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    root = tmp_path / "run"
    steps = [s for s in plan(recipe_of(), root) if s.name.startswith("taught")]
    for _ in run_steps([s for s in steps if not s.key.startswith("predictions")], root):
        pass
    ids = torch.arange(5, 25)[None]
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    merged = AutoModelForCausalLM.from_pretrained(root / "model/taught", dtype=torch.float32)
    with torch.no_grad():
        plain = base(ids).logits
        beside = peft.PeftModel.from_pretrained(base, root / "adapter/taught").eval()(ids).logits
        inside = merged.eval()(ids).logits
    torch.testing.assert_close(inside, beside, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(inside, plain, atol=1e-5)


@pytest.mark.parametrize("code", ["training_questions", "sft", "dpo"])
def test_a_new_version_of_a_steps_code_makes_it_again(code, recipe_of, tmp_path, monkeypatch):
    def marks() -> dict[str, str]:
        return {step.key: step.origin.fingerprint for step in plan(recipe_of(), tmp_path)}

    before = marks()
    monkeypatch.setattr(versions, "STEP_VERSIONS", {**versions.STEP_VERSIONS, code: 99})
    assert marks() != before
