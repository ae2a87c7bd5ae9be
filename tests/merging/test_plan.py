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
from biomistral.merging.config import from_settings, parse_config
from biomistral.merging.plan import find_folders, plan_merge
from biomistral.recipe.settings import MergeSettings


def settings_of(method="ties", models=("tuned",), base="base", **options):
    models = [{"model": entry} if isinstance(entry, str) else entry for entry in models]
    values = {"name": "merged", "method": method, "base": base, "models": models, **options}
    return TypeAdapter(MergeSettings).validate_python(values)


def plan_of(settings, folders):
    return plan_merge(from_settings(settings), folders)


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
    found = find_folders(from_settings(settings_of()), models)
    assert list(found.items()) == [("base", Path("b")), ("tuned", Path("t"))]


def test_without_models_names_are_folders(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    names = [str(tmp_path / "a"), str(tmp_path / "b")]
    config = from_settings(settings_of("linear", names, base=None))
    assert find_folders(config) == {name: Path(name) for name in names}


def test_an_unknown_model_is_named_with_a_suggestion():
    config = from_settings(settings_of())
    with pytest.raises(RecipeError, match="unknown model 'tuned'; did you mean \"tuned2\""):
        find_folders(config, {"base": Path("b"), "tuned2": Path("t")})


def test_a_model_with_an_adapter_needs_two_folders(tmp_path):
    config = parse_config("merge_method: passthrough\nmodels: [{model: base+extra@v1}]")
    models = {"base": Path("b"), "extra@v1": Path("e")}
    assert find_folders(config, models) == models
    with pytest.raises(RecipeError, match="unknown model 'extra@v1'"):
        find_folders(config, {"base": Path("b")})


# --- jobs ---


def jobs_of(config, folders):
    return {job.output.name: job for job in plan_merge(config, folders).jobs}


def test_every_tensor_has_a_job_with_its_numbers(folders):
    models = [{"model": "tuned", "weight": [0.2, 0.8], "density": [{"value": 0.5}]}]
    plan = plan_of(settings_of(models=models, scale=2), folders)
    assert [job.output.name for job in plan.jobs] == list(plan.base.tensors)
    for job in plan.jobs:
        assert job.method == "ties"
        assert job.options == {"normalize": True, "scale": 2.0}
        assert (job.base.model, job.base.numbers) == ("base", {})
        (one,) = job.inputs
        assert (one.model, one.stored.name) == ("tuned", job.output.name)
        assert one.stored.file.parent == folders["tuned"]
        last = ".layers.1." in job.output.name
        assert one.numbers == {"weight": pytest.approx(0.8 if last else 0.2), "density": 0.5}
    assert plan.write_bytes == sum(t.num_bytes for t in plan.base.tensors.values())
    assert plan.read_bytes == 2 * plan.write_bytes


def test_slerp_has_a_t_for_every_tensor(folders):
    t = [{"filter": "self_attn", "value": [0, 1]}, {"filter": "mlp", "value": [1, 0]}]
    jobs = {
        j.output.name: j
        for j in plan_of(settings_of("slerp", t=[*t, {"value": 0.5}]), folders).jobs
    }
    assert jobs["model.layers.1.self_attn.q_proj.weight"].options == {"t": 1.0}
    assert jobs["model.layers.1.mlp.up_proj.weight"].options == {"t": 0.0}
    assert jobs["lm_head.weight"].options == {"t": 0.5}


def test_models_of_a_mean_have_no_base(folders):
    plan = plan_of(settings_of("linear", ["base", {"model": "tuned", "weight": 3}]), folders)
    assert all(job.base is None for job in plan.jobs)
    assert [entry.model for entry in plan.jobs[0].inputs] == ["base", "tuned"]


def test_all_problems_of_the_parameters_come_at_once(folders):
    entry = {
        "model": "tuned",
        "weight": [{"filter": "self_attn", "value": 1}],
        "density": [{"filter": "mpl", "value": 0.5}, {"value": 1}],
    }
    with pytest.raises(RecipeError) as caught:
        plan_of(settings_of(models=[entry]), folders)
    assert len(caught.value.problems) == 2
    assert "models[0].weight: no filter matches 'lm_head.weight'" in str(caught.value)
    assert "models[0].density: the filter 'mpl' has no effect" in str(caught.value)
    assert caught.value.source == "merge merged"


def test_weights_of_a_mean_that_sum_to_zero_are_refused(folders):
    models = [{"model": "base", "weight": 1}, {"model": "tuned", "weight": -1}]
    with pytest.raises(RecipeError, match="sum to 0, and normalize divides by their sum"):
        plan_of(settings_of("linear", models), folders)
    plan_of(settings_of("linear", models, normalize=False), folders)


def test_the_type_of_the_output_is_that_of_the_base_unless_set(folders):
    change_weights(folders["base"], lambda t: t.update({k: v.bfloat16() for k, v in t.items()}))
    assert {job.output.dtype for job in plan_of(settings_of(), folders).jobs} == {"bfloat16"}
    plan = plan_of(settings_of(dtype="float16"), folders)
    assert {job.output.dtype for job in plan.jobs} == {"float16"}
    assert plan.output_config["dtype"] == "float16"


# --- slices ---


def franken(folders, *ranges, more=""):
    slices = "".join(
        f"- sources: [{{model: {model}, layer_range: [{first}, {end}]}}]\n"
        for model, first, end in ranges
    )
    config = parse_config(f"merge_method: passthrough\nslices:\n{slices}{more}")
    return plan_merge(config, folders)


def test_layers_are_numbered_through_and_may_be_taken_twice(folders):
    plan = franken(folders, ("base", 0, 2), ("tuned", 1, 2), ("base", 1, 2))
    came = {job.output.name: (job.inputs[0].model, job.inputs[0].stored.name) for job in plan.jobs}
    end = ".mlp.up_proj.weight"
    assert [came[f"model.layers.{layer}{end}"] for layer in range(4)] == [
        ("base", f"model.layers.0{end}"),
        ("base", f"model.layers.1{end}"),
        ("tuned", f"model.layers.1{end}"),
        ("base", f"model.layers.1{end}"),
    ]
    assert plan.output_config["num_hidden_layers"] == 4
    layers = [name.split(".")[2] for name in came if ".layers." in name]
    assert layers == sorted(layers, key=int)


def test_what_is_outside_the_layers_comes_from_the_first_and_the_last_slice(folders):
    plan = franken(folders, ("base", 0, 1), ("tuned", 1, 2))
    came = {job.output.name: job.inputs[0].model for job in plan.jobs}
    assert came["model.embed_tokens.weight"] == "base"
    assert came["model.norm.weight"] == came["lm_head.weight"] == "tuned"


def test_lists_with_an_entry_for_each_layer_follow_the_layers(folders):
    change_config(folders["base"], layer_types=["full", "sliding"])
    change_config(folders["tuned"], layer_types=["a", "b"])
    plan = franken(folders, ("base", 0, 2), ("tuned", 1, 2), ("base", 0, 1))
    assert plan.output_config["layer_types"] == ["full", "sliding", "b", "full"]


def test_a_range_outside_the_model_is_refused(folders):
    with pytest.raises(
        RecipeError,
        match=r"slices\[1\].sources\[0\]: layers \[1, 3\] are outside tuned, which has 2 layers",
    ):
        franken(folders, ("base", 0, 2), ("tuned", 1, 3))


def test_slices_of_models_of_different_width_are_refused(make_model):
    folders = {"base": make_model(0), "tuned": make_model(0, hidden_size=32)}
    with pytest.raises(ModelError, match="hidden_size is 32 instead of 64"):
        franken(folders, ("base", 0, 2), ("tuned", 0, 2))


def test_slices_of_models_of_different_depth_are_not(make_model):
    folders = {"base": make_model(0), "tuned": make_model(0, num_hidden_layers=4)}
    plan = franken(folders, ("base", 0, 2), ("tuned", 2, 4))
    assert plan.output_config["num_hidden_layers"] == 4


def test_a_model_without_layers_cannot_be_sliced(folders):
    def rename(tensors):
        for name in [name for name in tensors if ".layers." in name]:
            tensors[name.replace(".layers.", ".parts.")] = tensors.pop(name)

    change_weights(folders["tuned"], rename)
    with pytest.raises(RecipeError, match="tuned has 0 stacks of layers"):
        franken(folders, ("base", 0, 2), ("tuned", 0, 2))


def test_gradients_run_over_a_slice_and_are_at_their_start_outside(folders):
    config = parse_config(
        "merge_method: slerp\nbase_model: base\nslices:\n"
        "- sources: [{model: base, layer_range: [0, 2]}, {model: tuned, layer_range: [0, 2]}]\n"
        "- sources: [{model: base, layer_range: [0, 2]}, {model: tuned, layer_range: [0, 2]}]\n"
        "  parameters: {t: 0.4}\n"
        "parameters: {t: [0.1, 0.9]}\n"
    )
    jobs = jobs_of(config, folders)
    t = [jobs[f"model.layers.{i}.input_layernorm.weight"].options["t"] for i in range(4)]
    assert t == [0.1, 0.9, 0.4, 0.4]
    assert jobs["model.embed_tokens.weight"].options["t"] == 0.1  # as the first slice
    assert jobs["model.norm.weight"].options["t"] == 0.4  # as the last one


def test_a_gradient_with_more_values_than_layers_is_refused(folders):
    with pytest.raises(RecipeError, match="t: a gradient of 3 values over 2 layers"):
        plan_of(settings_of("slerp", t=[0, 0.5, 1]), folders)


def test_filters_of_a_model_see_its_own_names_and_filters_of_all_those_of_the_output(folders):
    config = parse_config(
        "merge_method: task_arithmetic\nbase_model: base\nslices:\n"
        "- sources:\n"
        "  - {model: base, layer_range: [0, 1]}\n"
        "  - model: tuned\n"
        "    layer_range: [1, 2]\n"
        "    parameters: {weight: [{filter: layers.1, value: 0.5}, {value: 0.1}]}\n"
        "parameters: {lambda: [{filter: layers.0, value: 2}, {value: 1}]}\n"
    )
    job = jobs_of(config, folders)["model.layers.0.mlp.up_proj.weight"]
    assert job.inputs[0].stored.name == "model.layers.1.mlp.up_proj.weight"
    assert job.inputs[0].numbers == {"weight": 0.5}
    assert job.options["scale"] == 2


# --- tied weights, vocabularies, adapters ---


def test_a_head_that_is_tied_and_stored_all_the_same_is_left_out(folders):
    for folder in folders.values():
        change_config(folder, tie_word_embeddings=True)
    change_weights(folders["base"], lambda tensors: tensors.pop("lm_head.weight"))
    plan = plan_of(settings_of(), folders)
    assert "lm_head.weight" not in {job.output.name for job in plan.jobs}
    (warning,) = plan.warnings
    assert warning.startswith("tuned stores lm_head.weight, which Transformers does not load")


def test_buffers_that_only_one_model_stores_do_not_matter(folders):
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    change_weights(folders["base"], lambda tensors: tensors.update({name: torch.ones(8)}))
    plan = plan_of(settings_of(), folders)
    assert name not in {job.output.name for job in plan.jobs}
    assert any(name in warning for warning in plan.warnings)


def test_models_that_disagree_about_tying_are_refused_with_a_remedy(folders):
    change_config(folders["tuned"], tie_word_embeddings=True)
    change_weights(folders["tuned"], lambda tensors: tensors.pop("lm_head.weight"))
    with pytest.raises(ModelError, match=r"only the tying of lm_head .*copying the embedding"):
        plan_of(settings_of(), folders)


def test_the_remedy_for_other_vocabularies_is_a_tokenizer(folders):
    def cut(tensors):
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            tensors[name] = tensors[name][:500].clone()

    change_weights(folders["tuned"], cut)
    change_config(folders["tuned"], vocab_size=500)
    with pytest.raises(ModelError, match=r"only the vocabularies differ.*tokenizer_source: base"):
        plan_of(settings_of(), folders)


def test_rows_follow_the_tokenizers_if_asked(folders):
    text = (
        "merge_method: ties\nbase_model: base\nmodels: [{model: tuned}]\nparameters: {weight: 1}\n"
        "tokenizer: {source: union, pad_to_multiple_of: 64}\nchat_template: 'say {{ x }}'"
    )
    plan = plan_merge(parse_config(text), folders)
    jobs = {job.output.name: job for job in plan.jobs}
    assert plan.vocabulary.size % 64 == 0
    assert jobs["lm_head.weight"].output.shape == (plan.vocabulary.size, 64)
    assert jobs["lm_head.weight"].inputs[0].rows is not None
    assert jobs["model.norm.weight"].inputs[0].rows is None
    assert plan.output_config["vocab_size"] == plan.vocabulary.size
    assert plan.chat_template == "say {{ x }}"


@pytest.fixture
def adapter(folders, tmp_path):
    """A LoRA adapter of the first layer's q_proj."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]})
    )
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    tensors = {f"{key}A.weight": torch.ones(2, 64), f"{key}B.weight": torch.ones(64, 2)}
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def test_an_adapter_goes_with_its_model(folders, adapter):
    text = "merge_method: slerp\nbase_model: base\nmodels: [{model: base+a}]\nparameters: {t: 1}"
    plan = plan_merge(parse_config(text), {**folders, "a": adapter})
    with_update = [job.output.name for job in plan.jobs if job.inputs[0].update]
    assert with_update == ["model.layers.0.self_attn.q_proj.weight"]
    assert all(job.base.update is None for job in plan.jobs)
    assert plan.models["base"] is plan.models["base+a"]


def test_an_adapter_of_another_model_is_refused(folders, adapter, make_model):
    text = "merge_method: passthrough\nmodels: [{model: base+a}]"
    folders = {"base": make_model(0, hidden_size=32), "a": adapter}
    with pytest.raises(ModelError, match="name the model that the adapter was trained on"):
        plan_merge(parse_config(text), folders)


# --- do the models fit ---


def test_differing_shapes_are_named_with_both_and_the_way_out(folders):
    change_weights(
        folders["tuned"],
        lambda t: t.update({"model.embed_tokens.weight": torch.zeros(9, 64)}),
    )
    with pytest.raises(ModelError) as caught:
        plan_of(settings_of(), folders)
    message = str(caught.value)
    rows = load_file(folders["base"] / "model.safetensors")["model.embed_tokens.weight"].shape[0]
    assert f"model.embed_tokens.weight is [9, 64] instead of [{rows}, 64]" in message
    assert str(folders["tuned"]) in message
    assert "resize_token_embeddings" in message


def test_missing_and_extra_tensors_are_named(folders):
    change_weights(folders["tuned"], lambda t: t.update(ghost=t.pop("lm_head.weight")))
    with pytest.raises(ModelError, match=r"lm_head\.weight is missing.*ghost is \[\d+, 64\] inst"):
        plan_of(settings_of(), folders)


def test_only_the_first_differences_are_named(make_model):
    folders = {"base": make_model(0), "tuned": make_model(0, hidden_size=32)}
    with pytest.raises(ModelError, match=r"hidden_size is 32 instead of 64;.*\d+ more differences"):
        plan_of(settings_of(), folders)


def test_another_architecture_of_equal_shapes_is_refused(folders):
    change_config(folders["tuned"], model_type="llama")
    with pytest.raises(ModelError, match="model_type is 'llama' instead of 'mistral'"):
        plan_of(settings_of(), folders)


def test_a_quantized_model_is_refused(folders):
    change_config(folders["tuned"], quantization_config={"quant_method": "awq"})
    with pytest.raises(ModelError, match=r"tuned: is quantized.*quantize the result"):
        plan_of(settings_of(), folders)


def test_integer_weights_are_refused(folders):
    for folder in folders.values():
        change_weights(folder, lambda t: t.update(extra=torch.zeros(2, dtype=torch.int8)))
    with pytest.raises(ModelError, match="extra is of type int8"):
        plan_of(settings_of(), folders)


def test_a_base_whose_tokenizer_is_too_large_is_refused(folders):
    (folders["base"] / "added_tokens.json").write_text('{"<pad>": 5000}')
    with pytest.raises(ModelError, match=r"'<pad>' the id 5000.*resize"):
        plan_of(settings_of(), folders)


# --- warnings ---


@pytest.mark.parametrize("method", ["ties", "dare_ties", "dare_linear", "task_arithmetic"])
def test_one_model_with_normalize_forgets_its_weight_and_says_so(folders, method):
    models = [{"model": "tuned", "weight": 0.5}]
    if method != "task_arithmetic":
        models[0]["density"] = 0.5
    settings = settings_of(method, models, normalize=True)
    (warning,) = plan_of(settings, folders).warnings
    assert "the weight of tuned has no effect" in warning
    assert plan_of(settings_of(method, models, normalize=False), folders).warnings == []


def test_density_one_of_dare_is_warned_of(folders):
    (warning,) = plan_of(settings_of("dare_ties"), folders).warnings
    assert warning == "density 1 of tuned: dare_ties drops nothing from it"


def test_the_base_among_the_models_is_warned_of(folders):
    plan = plan_of(settings_of(models=["base", "tuned"]), folders)
    assert plan.warnings == ["base is the base itself: its task vector is zero"]


def test_other_rotary_frequencies_are_warned_of(make_model):
    folders = {"base": make_model(0), "tuned": make_model(1, rope_theta=1e6)}
    (warning,) = plan_of(settings_of("slerp", t=0.5), folders).warnings
    assert "rope_theta 1e+06" in warning


@pytest.mark.parametrize("method", ["breadcrumbs", "della_linear"])
def test_density_one_is_warned_of_wherever_it_drops_nothing(folders, method):
    (warning,) = plan_of(settings_of(method), folders).warnings
    assert warning == f"density 1 of tuned: {method} drops nothing from it"


def test_a_gamma_beyond_the_density_is_warned_of(folders):
    models = [{"model": "tuned", "density": 0.95, "gamma": 0.2}]
    (warning,) = plan_of(settings_of("breadcrumbs", models), folders).warnings
    assert warning.startswith("gamma of tuned is more than its density leaves over")


def test_a_selection_among_one_model_is_warned_of(folders):
    (warning,) = plan_of(settings_of("sce", select_topk=0.5), folders).warnings
    assert warning.startswith("select_topk below 1 with one model")


def test_chances_beyond_1_are_refused(folders):
    models = [{"model": "tuned", "density": 0.9, "epsilon": 0.2}]
    with pytest.raises(RecipeError, match=r"chances from 0\.7 to 1\.1.*smaller epsilon"):
        plan_of(settings_of("della", models), folders)


def test_a_default_that_counts_where_no_filter_matches_is_told(folders):
    text = (
        "merge_method: ties\nbase_model: base\nmodels: [{model: tuned}]\n"
        "parameters: {weight: 1, density: [{filter: mlp, value: 0.5}]}"
    )
    (warning,) = plan_merge(parse_config(text), folders).warnings
    assert warning.startswith("parameters.density: no filter matches 'lm_head.weight' (one of ")
    assert warning.endswith("density is 1.0 there")


# --- code of a model's own ---


@pytest.mark.parametrize(
    ("model_type", "kept", "words"),
    [
        (None, False, "which is left out: Transformers has mistral itself"),
        ("river", True, "copy modeling_river.py into the output if you trust it"),
    ],
)
def test_code_of_its_own_does_not_come_along(folders, model_type, kept, words):
    for folder in folders.values():
        change_config(folder, auto_map={"AutoModelForCausalLM": "o/m--modeling_river.River"})
        if model_type:
            change_config(folder, model_type=model_type)
    plan = plan_of(settings_of("slerp", t=0.5), folders)
    assert ("auto_map" in plan.output_config) is kept
    (warning,) = plan.warnings
    assert words in warning


def test_rope_parameters_of_another_form_are_no_error(folders):
    change_config(folders["tuned"], rope_parameters=["x"])
    assert plan_of(settings_of("slerp", t=0.5), folders).jobs
