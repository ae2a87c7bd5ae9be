"""What a merge refuses before it reads a weight, and what it warns of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file

from biomistral.errors import ModelError, RecipeError
from biomistral.merging.plan import find_folders, plan_merge
from biomistral.recipe.settings import MergeSettings


def settings_of(method="ties", models=("tuned",), base="base", **options):
    models = [{"model": entry} if isinstance(entry, str) else entry for entry in models]
    values = {"name": "merged", "method": method, "base": base, "models": models, **options}
    return TypeAdapter(MergeSettings).validate_python(values)


@pytest.fixture
def folders(make_model, tmp_path):
    """Copies of two models of one shape, to be broken at will."""
    pair = {"base": make_model(0), "tuned": make_model(1)}
    return {name: shutil.copytree(path, tmp_path / name) for name, path in pair.items()}


def change_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


# --- folders ---


def test_names_are_looked_up_base_first():
    models = {"tuned": Path("t"), "base": Path("b"), "other": Path("o")}
    assert list(find_folders(settings_of(), models).items()) == [
        ("base", Path("b")),
        ("tuned", Path("t")),
    ]


def test_without_models_names_are_folders():
    settings = settings_of("linear", ["x/a", "y"], base=None)
    assert find_folders(settings, None) == {"x/a": Path("x/a"), "y": Path("y")}


def test_an_unknown_model_is_named_with_a_suggestion():
    with pytest.raises(RecipeError, match="unknown model 'tuned'; did you mean \"tuned2\""):
        find_folders(settings_of(), {"base": Path("b"), "tuned2": Path("t")})


# --- numbers ---


def test_numbers_are_settled_for_every_tensor(folders):
    models = [{"model": "tuned", "weight": [0.2, 0.8], "density": [{"value": 0.5}]}]
    plan = plan_merge(settings_of(models=models), folders)
    assert plan.weights[0]["model.layers.0.mlp.up_proj.weight"] == pytest.approx(0.2)
    assert plan.weights[0]["model.layers.1.mlp.up_proj.weight"] == pytest.approx(0.8)
    assert set(plan.densities[0].values()) == {0.5}
    assert [spec.name for spec in plan.outputs] == list(plan.weights[0])


def test_slerp_has_a_t_for_every_tensor(folders):
    t = [{"filter": "self_attn", "value": [0, 1]}, {"filter": "mlp", "value": [1, 0]}]
    plan = plan_merge(settings_of("slerp", t=[*t, {"value": 0.5}]), folders)
    assert plan.t is not None
    assert plan.t["model.layers.1.self_attn.q_proj.weight"] == 1
    assert plan.t["model.layers.1.mlp.up_proj.weight"] == 0
    assert plan.t["lm_head.weight"] == 0.5


def test_all_problems_of_the_parameters_come_at_once(folders):
    entry = {
        "model": "tuned",
        "weight": [{"filter": "self_attn", "value": 1}],
        "density": [{"filter": "mpl", "value": 0.5}, {"value": 1}],
    }
    with pytest.raises(RecipeError) as caught:
        plan_merge(settings_of(models=[entry]), folders)
    assert len(caught.value.problems) == 2
    assert "weight of tuned: no filter matches 'lm_head.weight'" in str(caught.value)
    assert "density of tuned: the filter 'mpl' has no effect" in str(caught.value)


def test_weights_of_a_mean_that_sum_to_zero_are_refused(folders):
    models = [{"model": "base", "weight": 1}, {"model": "tuned", "weight": -1}]
    with pytest.raises(RecipeError, match="sum to 0, and normalize divides by their sum"):
        plan_merge(settings_of("linear", models), folders)
    plan_merge(settings_of("linear", models, normalize=False), folders)


def test_the_type_of_the_output_is_that_of_the_base_unless_set(folders):
    change_weights(folders["base"], lambda t: t.update({k: v.bfloat16() for k, v in t.items()}))
    assert {s.dtype for s in plan_merge(settings_of(), folders).outputs} == {"bfloat16"}
    plan = plan_merge(settings_of(dtype="float16"), folders)
    assert {spec.dtype for spec in plan.outputs} == {"float16"}


# --- do the models fit ---


def test_differing_shapes_are_named_with_both_and_the_way_out(folders):
    change_weights(
        folders["tuned"],
        lambda t: t.update({"model.embed_tokens.weight": torch.zeros(9, 64)}),
    )
    with pytest.raises(ModelError) as caught:
        plan_merge(settings_of(), folders)
    message = str(caught.value)
    rows = load_file(folders["base"] / "model.safetensors")["model.embed_tokens.weight"].shape[0]
    assert f"model.embed_tokens.weight is [9, 64] instead of [{rows}, 64]" in message
    assert str(folders["tuned"]) in message
    assert "resize_token_embeddings" in message


def test_missing_and_extra_tensors_are_named(folders):
    change_weights(folders["tuned"], lambda t: t.update(ghost=t.pop("lm_head.weight")))
    with pytest.raises(ModelError, match=r"lm_head\.weight is missing.*ghost is \[\d+, 64\] inst"):
        plan_merge(settings_of(), folders)


def test_only_the_first_differences_are_named(make_model):
    folders = {"base": make_model(0), "tuned": make_model(0, hidden_size=32)}
    with pytest.raises(ModelError, match=r"hidden_size is 32 instead of 64;.*\d+ more differences"):
        plan_merge(settings_of(), folders)


def test_another_architecture_of_equal_shapes_is_refused(folders):
    change_config(folders["tuned"], model_type="llama")
    with pytest.raises(ModelError, match="model_type is 'llama' instead of 'mistral'"):
        plan_merge(settings_of(), folders)


def test_a_quantized_model_is_refused(folders):
    change_config(folders["tuned"], quantization_config={"quant_method": "awq"})
    with pytest.raises(ModelError, match=r"tuned: is quantized.*quantize the result"):
        plan_merge(settings_of(), folders)


def test_integer_weights_are_refused(folders):
    for folder in folders.values():
        change_weights(folder, lambda t: t.update(extra=torch.zeros(2, dtype=torch.int8)))
    with pytest.raises(ModelError, match="extra is of type int8"):
        plan_merge(settings_of(), folders)


def test_a_base_whose_tokenizer_is_too_large_is_refused(folders):
    (folders["base"] / "added_tokens.json").write_text('{"<pad>": 5000}')
    with pytest.raises(ModelError, match=r"'<pad>' the id 5000.*resize"):
        plan_merge(settings_of(), folders)


# --- warnings ---


@pytest.mark.parametrize("method", ["ties", "dare_ties", "dare_linear", "task_arithmetic"])
def test_one_model_with_normalize_forgets_its_weight_and_says_so(folders, method):
    models = [{"model": "tuned", "weight": 0.5}]
    if method != "task_arithmetic":
        models[0]["density"] = 0.5
    settings = settings_of(method, models, normalize=True)
    (warning,) = plan_merge(settings, folders).warnings
    assert "the weight of tuned has no effect" in warning
    assert plan_merge(settings_of(method, models, normalize=False), folders).warnings == []


def test_density_one_of_dare_is_warned_of(folders):
    (warning,) = plan_merge(settings_of("dare_ties"), folders).warnings
    assert warning == "density 1 of tuned: dare_ties drops nothing from it"


def test_the_base_among_the_models_is_warned_of(folders):
    plan = plan_merge(settings_of(models=["base", "tuned"]), folders)
    assert plan.warnings == ["base is the base itself: its task vector is zero"]


def test_other_rotary_frequencies_are_warned_of(make_model):
    folders = {"base": make_model(0), "tuned": make_model(1, rope_theta=1e6)}
    (warning,) = plan_merge(settings_of("slerp", t=0.5), folders).warnings
    assert "rope_theta 1e+06" in warning
