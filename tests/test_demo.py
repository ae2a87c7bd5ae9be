"""What the demo is for: trained on articles, a model answers what its base can only guess.

Only what training gives reliably is asserted, far from the numbers that it gives.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from biomistral.pipeline import plan, run_steps
from biomistral.recipe import load_recipe
from biomistral.records import Score, read_records

REPOSITORY = Path(__file__).resolve().parent.parent
CUT = [
    "pretrain.base.epochs=7",
    "evaluate.models=[base, medical, medical-slerp]",
    "evaluate.ensembles=[]",
    "evaluate.cost=false",
    "evaluate.languages=[en, fr]",
    "merge=[{name: medical-slerp, method: slerp, base: base, models: [{model: medical}], t: 0.7}]",
    "quantize=[]",
    "sft=[]",
    "dpo=[]",
]


@pytest.fixture(scope="module")
def scores(
    miniature_world: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str, str], Score]:
    """Accuracies by model, group and language, averaged over tasks."""
    root = tmp_path_factory.mktemp("demo")
    recipe = load_recipe(
        REPOSITORY / "recipes/miniature.yaml",
        changes=CUT,
        environment={"MINIATURE": str(miniature_world)},
    )
    left_out = {"medical-replay", "report"}
    for _ in run_steps([step for step in plan(recipe, root) if step.name not in left_out], root):
        pass
    rows = read_records(root / "scores/scores/scores.parquet", Score)
    return {
        (row.model, row.group, row.language): row
        for row in rows
        if row.task == "average" and row.metric == "accuracy"
    }


@pytest.mark.slow
@pytest.mark.parametrize("language", ["en", "fr"])
def test_articles_teach_what_the_base_can_only_guess(
    scores: dict[tuple[str, str, str], Score], language: str
) -> None:
    base = scores["base", "medical", language]
    medical = scores["medical", "medical", language]
    chance = scores["random choice", "medical", language]
    assert medical.low is not None
    assert base.high is not None
    assert medical.low > base.high
    assert medical.low > chance.value + 0.1
    assert base.value < chance.value + 0.15


@pytest.mark.slow
def test_the_base_knows_towns_and_training_on_articles_forgets_some(
    scores: dict[tuple[str, str, str], Score],
) -> None:
    base = scores["base", "general", "en"]
    assert base.value > scores["random choice", "general", "en"].value + 0.2
    assert scores["medical", "general", "en"].value < base.value


@pytest.mark.slow
def test_merging_brings_back_general_knowledge_and_keeps_some_medical(
    scores: dict[tuple[str, str, str], Score],
) -> None:
    merged = "medical-slerp"
    assert scores[merged, "general", "en"].value > scores["medical", "general", "en"].value
    assert scores[merged, "medical", "en"].value > scores["base", "medical", "en"].value
