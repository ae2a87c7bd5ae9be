"""The merge step: folders in, one folder out that Transformers loads as it is."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from biomistral.advisory import ADVISORY
from biomistral.artifacts import content_digest, read_manifest
from biomistral.errors import InputError, ModelError
from biomistral.merging import MergeOptions, merge, merge_config
from biomistral.merging.engine import Engine
from biomistral.models.cards import Card, read_card, write_card
from biomistral.recipe.settings import MergeSettings

SPARSE = {"model": "tuned", "weight": 0.5, "density": 0.5}
EVERY_METHOD = {
    "linear": {"models": [{"model": "base"}, {"model": "tuned", "weight": 3}]},
    "slerp": {"models": [{"model": "tuned"}], "t": [0.2, 0.8]},
    "task_arithmetic": {"models": [{"model": "tuned", "weight": 0.5}]},
    "ties": {"models": [SPARSE, {"model": "third", "density": 0.3}]},
    "dare_linear": {"models": [SPARSE], "rescale": "l1_norm"},
    "dare_ties": {"models": [SPARSE, {"model": "third", "density": 0.3}]},
}


def settings_of(method, **changes):
    values = {"name": "merged", "method": method, "base": "base", **EVERY_METHOD[method]}
    return TypeAdapter(MergeSettings).validate_python({**values, **changes})


@pytest.fixture(scope="module")
def models(make_model):
    return {"base": make_model(0), "tuned": make_model(1), "third": make_model(2)}


@pytest.fixture
def broken_models(models, tmp_path):
    """The models, with a copy of the tuned one that a test may break."""
    return {**models, "tuned": shutil.copytree(models["tuned"], tmp_path / "tuned")}


def weights_of(folder):
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("method", EVERY_METHOD)
def test_a_merged_model_loads_and_answers(models, tmp_path, method):
    out = merge(settings_of(method), tmp_path / "out", models=models)
    model = AutoModelForCausalLM.from_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    encoded = tokenizer("The fever of the river", return_tensors="pt")
    assert torch.isfinite(model(**encoded).logits).all()
    manifest = read_manifest(out)
    assert manifest["counts"]["tensors"] == len(weights_of(out))
    assert manifest["counts"]["parameters"] == sum(v.numel() for v in weights_of(out).values())
    assert manifest["counts"]["warnings"] == []


def test_a_mean_equals_the_computation_by_hand(models, tmp_path):
    out = merge(settings_of("linear"), tmp_path / "out", models=models)
    state = AutoModelForCausalLM.from_pretrained(out).state_dict()
    base, tuned = weights_of(models["base"]), weights_of(models["tuned"])
    for name, value in state.items():
        torch.testing.assert_close(value, (base[name] + 3 * tuned[name]) / 4)


def test_a_gradient_follows_the_layers(models, tmp_path):
    out = merge(settings_of("slerp", t=[0, 1]), tmp_path / "out", models=models)
    merged, base, tuned = (weights_of(f) for f in (out, models["base"], models["tuned"]))
    for name, value in merged.items():
        assert torch.equal(value, (tuned if ".layers.1." in name else base)[name])


def test_without_names_models_are_folders_and_no_path_is_written(models, tmp_path):
    entries = [{"model": str(models["base"])}, {"model": str(models["tuned"]), "weight": 3}]
    settings = settings_of("linear", base=None, models=entries)
    out = merge(settings, tmp_path / "out")
    named = merge(settings_of("linear"), tmp_path / "named", models=models)
    assert weights_bytes(out) == weights_bytes(named)
    parent = str(models["base"].parent).encode()
    written = [path for path in out.iterdir() if path.name != "manifest.json"]
    assert not [path.name for path in written if parent in path.read_bytes()]


def weights_bytes(folder):
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("method", EVERY_METHOD)
def test_shards_threads_and_repetition_change_no_byte(models, tmp_path, method):
    sharded = tmp_path / "sharded"
    AutoModelForCausalLM.from_pretrained(models["tuned"]).save_pretrained(
        sharded, max_shard_size="100KB"
    )
    AutoTokenizer.from_pretrained(models["tuned"]).save_pretrained(sharded)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = merge(settings_of(method), tmp_path / "one", models=models)
        torch.set_num_threads(2)
        two = merge(settings_of(method), tmp_path / "two", models={**models, "tuned": sharded})
        assert torch.get_num_threads() == 2  # the caller's setting is given back
    finally:
        torch.set_num_threads(before)
    assert content_digest(one) == content_digest(two)


def test_the_seed_decides_what_dare_drops(models, tmp_path):
    def merged(label, settings, **options):
        return weights_bytes(merge(settings, tmp_path / label, models=models, **options))

    default = merged("default", settings_of("dare_linear"))
    assert (
        merged("named", settings_of("dare_linear", seed=42), options=MergeOptions(seed=7))
        == default
    )
    assert merged("other", settings_of("dare_linear"), options=MergeOptions(seed=7)) != default


def test_the_type_can_be_set_and_is_said(models, tmp_path):
    out = merge(settings_of("linear", dtype="bfloat16"), tmp_path / "out", models=models)
    assert {value.dtype for value in weights_of(out).values()} == {torch.bfloat16}
    assert AutoModelForCausalLM.from_pretrained(out).dtype == torch.bfloat16
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"


def test_warnings_are_kept(models, tmp_path):
    settings = settings_of("ties", models=[SPARSE])
    out = merge(settings, tmp_path / "out", models=models)
    (warning,) = read_manifest(out)["counts"]["warnings"]
    assert "the weight of tuned has no effect" in warning


def test_the_card_says_how_the_model_was_made(models, tmp_path):
    card = read_card(merge(settings_of("slerp"), tmp_path / "out", models=models))
    assert card.relation == "merge"
    assert card.base_models == ("base", "tuned")
    assert card.details == {"method": "slerp", "t": "[0.2, 0.8]", "tuned": "as it is"}


def test_progress_ends_at_the_number_of_tensors(models, tmp_path):
    calls = []
    merge(
        settings_of("linear"),
        tmp_path / "out",
        models=models,
        progress=lambda done, total, text: calls.append((done, total, text)),
    )
    num_tensors = len(weights_of(models["base"]))
    assert calls[0] == (0, num_tensors, "tensors merged")
    assert calls[-1] == (num_tensors, num_tensors, "tensors merged")


# --- bad inputs ---


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_nan_and_infinity_are_refused_and_nothing_is_left(broken_models, tmp_path, value, dtype):
    file = broken_models["tuned"] / "model.safetensors"
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(file).items()}
    tensors["model.norm.weight"][3] = value
    save_file(tensors, file)
    with pytest.raises(ModelError, match=r"tuned.*model\.norm\.weight holds NaN or infinity"):
        merge(settings_of("ties"), tmp_path / "runs" / "out", models=broken_models)
    assert list((tmp_path / "runs").iterdir()) == []


def test_values_beyond_float16_are_refused(broken_models, tmp_path):
    file = broken_models["tuned"] / "model.safetensors"
    save_file({name: tensor * 1e7 for name, tensor in load_file(file).items()}, file)
    with pytest.raises(ModelError, match=r"beyond the range of float16.*set dtype: bfloat16"):
        merge(settings_of("linear", dtype="float16"), tmp_path / "out", models=broken_models)


def test_large_finite_values_are_not_taken_for_infinity(broken_models, tmp_path):
    file = broken_models["tuned"] / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"][:] = 3e38  # their sum is beyond float32
    save_file(tensors, file)
    out = merge(settings_of("slerp", t=1.0), tmp_path / "out", models=broken_models)
    assert weights_of(out)["model.norm.weight"][0] == pytest.approx(3e38)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: f.write_bytes(f.read_bytes()[:-1]), "is damaged or was not copied whole"),
        (lambda f: f.rename(f.with_name("pytorch_model.bin")), "are pickled"),
        (lambda f: f.unlink(), "has no weights"),
    ],
)
def test_a_broken_model_is_refused_before_anything_is_written(
    broken_models, tmp_path, spoil, message
):
    spoil(broken_models["tuned"] / "model.safetensors")
    with pytest.raises(ModelError, match=message):
        merge(settings_of("linear"), tmp_path / "runs" / "out", models=broken_models)
    assert not (tmp_path / "runs").exists()


def test_an_input_is_never_the_output(models):
    with pytest.raises(InputError, match="is the input 'tuned', which is read"):
        merge(settings_of("linear"), models["tuned"], models=models)


def test_only_files_that_are_read_decide_whether_a_merge_is_the_same(broken_models, tmp_path):
    def fingerprint():
        out = merge(settings_of("linear"), tmp_path / "out", models=broken_models)
        return read_manifest(out)["fingerprint"]

    tuned = broken_models["tuned"]
    before = fingerprint()
    (tuned / "optimizer.bin").write_bytes(b"1")
    (tuned / "logs").mkdir()
    (tuned / "logs" / "events").write_text("x")
    assert fingerprint() == before
    os.utime(tuned / "model.safetensors", ns=(1, 1))
    assert fingerprint() != before


# --- the package ---


def test_importing_the_room_loads_no_torch():
    code = "import sys, biomistral.merging; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_room_offers_merge_and_nothing_made_up():
    import biomistral.merging

    assert biomistral.merging.merge is merge
    with pytest.raises(AttributeError, match="no attribute 'megre'"):
        _ = biomistral.merging.megre


# --- mergekit's configurations ---


def configured(path, models, text):
    """Write a configuration; letters stand for the models."""
    for letter, name in zip("ABC", ("base", "tuned", "third"), strict=True):
        text = text.replace(f"<{letter}>", str(models[name]))
    path.write_text(text)
    return path


SLERP = """
merge_method: slerp
base_model: <A>
models: [{model: <A>}, {model: <B>}]
parameters: {t: [0.2, 0.8]}
dtype: float32
"""


def test_a_configuration_gives_the_bytes_of_the_same_recipe(models, tmp_path):
    config = configured(tmp_path / "slerp.yml", models, SLERP)
    out = merge_config(config, tmp_path / "out")
    recipe = merge(settings_of("slerp", dtype="float32"), tmp_path / "recipe", models=models)
    assert weights_bytes(out) == weights_bytes(recipe)
    assert AutoModelForCausalLM.from_pretrained(out).dtype == torch.float32
    assert AutoTokenizer.from_pretrained(out)


def test_the_card_of_a_configuration_has_it_without_the_folders(models, tmp_path):
    out = merge_config(configured(tmp_path / "slerp.yml", models, SLERP), tmp_path / "out")
    text = (out / "README.md").read_text()
    assert "base_model_relation: merge" in text
    assert "merge_method: slerp" in text
    assert ADVISORY in text
    assert str(models["base"].parent) not in text
    assert f"model: {models['tuned'].name}" in text


def test_a_card_has_no_language_or_topic_that_nobody_gave(models, tmp_path):
    config = configured(tmp_path / "slerp.yml", models, SLERP)
    text = (merge_config(config, tmp_path / "out") / "README.md").read_text()
    assert "language:" not in text
    assert "tags:\n- biomistral\n- merge\n" in text
    tuned = shutil.copytree(models["tuned"], tmp_path / "tuned")
    write_card(tuned, Card("tuned", (), None, "", languages=("fr",), topics=("river",)))
    config = configured(tmp_path / "slerp.yml", {**models, "tuned": tuned}, SLERP)
    card = read_card(merge_config(config, tmp_path / "out"))
    assert (card.languages, card.topics) == (("fr",), ("river",))


def test_added_tokens_are_united_and_their_rows_follow(models, tmp_path):
    tuned = shutil.copytree(models["tuned"], tmp_path / "tuned")
    tokenizer = AutoTokenizer.from_pretrained(tuned)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.save_pretrained(tuned)
    model = AutoModelForCausalLM.from_pretrained(tuned)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(tuned)
    text = """
merge_method: linear
models:
  - {model: <A>, parameters: {weight: 1}}
  - {model: <B>, parameters: {weight: 1}}
tokenizer_source: union
"""
    config = configured(tmp_path / "union.yml", {**models, "tuned": tuned}, text)
    out = merge_config(config, tmp_path / "out")
    merged = AutoTokenizer.from_pretrained(out)
    loaded = AutoModelForCausalLM.from_pretrained(out)
    pad = merged.convert_tokens_to_ids("<pad>")
    assert loaded.config.vocab_size == len(merged) == len(tokenizer)
    row = loaded.get_input_embeddings().weight[pad]
    torch.testing.assert_close(row, model.get_input_embeddings().weight[len(tokenizer) - 1])


def test_layers_can_be_put_together_from_two_models(models, tmp_path):
    text = """
merge_method: passthrough
slices:
  - sources: [{model: <A>, layer_range: [0, 2]}]
  - sources: [{model: <B>, layer_range: [0, 1]}]
"""
    out = merge_config(configured(tmp_path / "tall.yml", models, text), tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.config.num_hidden_layers == 3
    name = "self_attn.q_proj.weight"
    third = weights_of(out)[f"model.layers.2.{name}"]
    assert torch.equal(third, weights_of(models["tuned"])[f"model.layers.0.{name}"])


def test_pickled_weights_are_read_if_asked_for(models, tmp_path):
    tuned = shutil.copytree(models["tuned"], tmp_path / "tuned")
    torch.save(weights_of(tuned), tuned / "pytorch_model.bin")
    (tuned / "model.safetensors").unlink()
    config = configured(tmp_path / "slerp.yml", {**models, "tuned": tuned}, SLERP)
    with pytest.raises(ModelError, match="--allow-pickle"):
        merge_config(config, tmp_path / "out")
    out = merge_config(config, tmp_path / "out", options=MergeOptions(allow_pickle=True))
    plain = merge_config(configured(tmp_path / "p.yml", models, SLERP), tmp_path / "plain")
    assert weights_bytes(out) == weights_bytes(plain)


# --- whole or absent, and resumed ---


SMALL = MergeOptions(shard_bytes=100_000)


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors*")}


def test_an_interrupted_merge_goes_on_from_its_finished_files(models, tmp_path):
    config = configured(tmp_path / "slerp.yml", models, SLERP)
    whole = merge_config(config, tmp_path / "whole", options=SMALL)
    assert len(files_of(whole)) > 3

    def stop(done, total, text):
        if done > total / 2:
            raise KeyboardInterrupt

    out = tmp_path / "runs" / "out"
    with pytest.raises(KeyboardInterrupt):
        merge_config(config, out, options=SMALL, progress=stop)
    assert not out.exists()
    (work,) = (tmp_path / "runs").glob("*.partial/.work")
    finished = [path.name.removesuffix(".finished") for path in work.glob("*.finished")]
    assert finished
    before = {name: (work / name).stat().st_ino for name in finished}

    counts = []
    merge_config(config, out, options=SMALL, progress=lambda done, *_: counts.append(done))
    assert counts[0] > 0
    assert {name: (out / name).stat().st_ino for name in finished} == before
    assert files_of(out) == files_of(whole)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["out"]


def test_other_options_start_from_nothing(models, tmp_path):
    config = configured(tmp_path / "slerp.yml", models, SLERP)

    def stop(done, total, text):
        if done > total / 2:
            raise KeyboardInterrupt

    out = tmp_path / "runs" / "out"
    with pytest.raises(KeyboardInterrupt):
        merge_config(config, out, options=SMALL, progress=stop)
    counts = []
    options = MergeOptions(shard_bytes=200_000)
    merge_config(config, out, options=options, progress=lambda done, *_: counts.append(done))
    assert counts[0] == 0
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["out"]


def test_a_disk_that_is_too_small_is_seen_beforehand(models, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 1000))
    with pytest.raises(InputError, match=r"need 0\.\d GB and the disk has 0\.0 GB left"):
        merge(settings_of("linear"), tmp_path / "runs" / "out", models=models)
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_disk_that_fills_up_half_way_keeps_what_is_finished(models, tmp_path, monkeypatch):
    config = configured(tmp_path / "slerp.yml", models, SLERP)
    out = tmp_path / "runs" / "out"

    def full(self, job, place, *rest, real=Engine._do):
        if job.output.name == "model.norm.weight":
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, job, place, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(Engine, "_do", full)
        with pytest.raises(InputError, match="no space left on the disk; free some"):
            merge_config(config, out, options=SMALL)
    assert not out.exists()
    counts = []
    merge_config(config, out, options=SMALL, progress=lambda done, *_: counts.append(done))
    assert counts[0] > 0


@pytest.mark.parametrize(
    ("device", "wrong"), [("gpu", "is none of cpu, cuda"), ("cuda:0", "PyTorch sees no GPU")]
)
def test_a_device_that_is_not_there_is_refused_at_once(
    models, tmp_path, monkeypatch, device, wrong
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out = tmp_path / "out"
    with pytest.raises(InputError, match=wrong):
        merge(settings_of("slerp"), out, models=models, options=MergeOptions(device=device))
    assert not list(tmp_path.iterdir())


def test_languages_and_data_of_a_hub_repository_reach_the_card(models, tmp_path):
    hub = shutil.copytree(models["tuned"], tmp_path / "hub")
    (hub / "card.json").unlink(missing_ok=True)
    (hub / "README.md").write_text("---\nlanguage: [fr, pt]\ndatasets: owner/notes\n---\n# Tuned\n")
    out = merge(settings_of("slerp"), tmp_path / "out", models={**models, "tuned": hub})
    card = read_card(out)
    assert card is not None
    assert {"fr", "pt"} <= set(card.languages)
    assert "owner/notes" in card.datasets
