"""The published BioMistral merges, in mergekit's format, planned on a small model of 32 layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from biomistral.merging.config import from_settings, load_config
from biomistral.merging.plan import plan_merge
from biomistral.recipe import load_recipe

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
BASE, TUNED = "mistralai/Mistral-7B-Instruct-v0.1", "BioMistral/BioMistral-7B"


@pytest.fixture(scope="module")
def folders(make_model):
    """Two models with the names and number of layers of Mistral 7B."""
    small = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 32,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    pair = {BASE: make_model(0, **small), TUNED: make_model(1, **small)}
    return {**pair, "base": pair[BASE], "biomistral": pair[TUNED]}


def plan_of(name, folders):
    return plan_merge(load_config(RECIPES / "mergekit" / f"biomistral-7b-{name}.yml"), folders)


def test_there_are_three():
    found = sorted(path.name for path in (RECIPES / "mergekit").iterdir())
    assert found == [f"biomistral-7b-{name}.yml" for name in ("dare", "slerp", "ties")]


def test_slerp_follows_its_gradients_over_32_layers(folders):
    plan = plan_of("slerp", folders)
    t = {job.output.name: job.options["t"] for job in plan.jobs}
    assert len(t) == 3 + 9 * 32
    for layer in range(32):
        place = f"model.layers.{layer}"
        knots = np.linspace(0, 31, 5)
        attention = np.interp(layer, knots, [0, 0.5, 0.3, 0.7, 1])
        assert t[f"{place}.self_attn.k_proj.weight"] == pytest.approx(attention)
        feed_forward = np.interp(layer, knots, [1, 0.5, 0.7, 0.3, 0])
        assert t[f"{place}.mlp.down_proj.weight"] == pytest.approx(feed_forward)
        assert t[f"{place}.input_layernorm.weight"] == 0.5
    assert t["model.embed_tokens.weight"] == t["lm_head.weight"] == 0.5
    assert {(job.base.model, job.inputs[0].model) for job in plan.jobs} == {(BASE, TUNED)}
    assert plan.warnings == []


def test_ties_forgets_its_weight_and_says_so(folders):
    plan = plan_of("ties", folders)
    assert {tuple(job.inputs[0].numbers.items()) for job in plan.jobs} == {
        (("weight", 0.5), ("density", 0.5))
    }
    assert all(job.options == {"normalize": True, "scale": 1.0} for job in plan.jobs)
    (warning,) = plan.warnings
    assert warning.startswith("the weight of BioMistral/BioMistral-7B has no effect")


def test_dare_rescales_by_its_density(folders):
    plan = plan_of("dare", folders)
    options = {"normalize": False, "scale": 1.0, "rescale": "density"}
    assert all(job.options == options for job in plan.jobs)
    assert all(job.inputs[0].numbers == {"weight": 0.5, "density": 0.5} for job in plan.jobs)
    assert plan.warnings == []


@pytest.mark.parametrize("name", ["slerp", "ties", "dare"])
def test_the_output_is_in_bfloat16(name, folders):
    plan = plan_of(name, folders)
    assert {job.output.dtype for job in plan.jobs} == {"bfloat16"}
    assert plan.output_config["dtype"] == "bfloat16"
    assert plan.output_config["num_hidden_layers"] == 32


@pytest.mark.parametrize("name", ["slerp", "ties", "dare"])
def test_the_recipe_of_the_whole_run_says_the_same(name, folders):
    recipe = load_recipe(RECIPES / "biomistral-7b.yaml", environment={})
    (entry,) = [entry for entry in recipe.merge if entry.name == f"biomistral-{name}"]
    ours, theirs = plan_merge(from_settings(entry), folders), plan_of(name, folders)
    for one, other in zip(ours.jobs, theirs.jobs, strict=True):
        assert one.method == other.method
        assert one.output == other.output
        assert one.options == other.options
        assert one.base.stored == other.base.stored
        assert [i.stored for i in one.inputs] == [i.stored for i in other.inputs]
        assert [i.numbers for i in one.inputs] == [i.numbers for i in other.inputs]
