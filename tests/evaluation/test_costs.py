"""Costs as an artefact: numbers of every model, which are no result to the byte."""

from __future__ import annotations

import json

from biomistral import artifacts
from biomistral.evaluation import measure_costs
from biomistral.evaluation.costs import COSTS
from biomistral.models.costs import CostSettings
from biomistral.recipe.settings import EvaluateSettings


def test_each_model_is_measured_and_the_artefact_does_not_change_with_its_numbers(
    tiny_model, tmp_path
):
    how = CostSettings(20, 2, 2, 1, "float32", 1)
    seen = []
    out = measure_costs(
        EvaluateSettings(models=["one"]),
        {"one": tiny_model},
        tmp_path / "cost",
        how=how,
        progress=lambda done, total, text: seen.append((done, total, text)),
    )
    rows = json.loads((out / COSTS).read_text())
    assert [row["model"] for row in rows] == ["one"]
    assert all(row["writing_tokens_per_second"] > 0 for row in rows)
    assert seen == [(0, 1, "models, one")]
    before = artifacts.content_digest(out)
    (out / COSTS).write_text("[]")
    assert artifacts.content_digest(out) == before
