"""``biomistral merge`` as it is typed: a configuration at once, a plan before, a difference after."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from biomistral.advisory import ADVISORY
from biomistral.artifacts import read_manifest
from biomistral.cli.merging import shard_bytes
from biomistral.errors import InputError
from biomistral.merging import kernels


@pytest.fixture
def config(make_model, write) -> Path:
    return write(
        f"""
merge_method: ties
base_model: {make_model(0)}
models:
  - {{model: {make_model(1)}, parameters: {{weight: 0.5, density: 0.5}}}}
parameters: {{normalize: true}}
dtype: bfloat16
""",
        "ties.yml",
    )


@pytest.mark.parametrize("words", [(), ("run",)])
def test_a_configuration_is_merged_at_once(command, config, tmp_path, words):
    finished = command("merge", *words, config, tmp_path / "out", "--threads", "1")
    assert finished.status == 0, finished.err
    assert re.search(r"21 tensors, [\d,]+ parameters", finished.out)
    assert ADVISORY in finished.out
    assert "warning:   the weight of" in finished.err
    assert read_manifest(tmp_path / "out") is not None


def test_options_may_stand_before_the_configuration(command, config, tmp_path):
    finished = command("merge", "--shard-size", "100KB", config, tmp_path / "out")
    assert finished.status == 0, finished.err
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1


def test_a_plan_says_what_is_read_and_written_and_writes_nothing(command, config, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    finished = command("merge", "plan", config)
    assert finished.status == 0, finished.err
    lines = dict(line.split(":", 1) for line in finished.out.splitlines())
    assert lines["method"].strip() == "ties (Yadav et al., arXiv 2306.01708)"
    assert "21 tensors, bfloat16" in lines["writes"]
    assert " s here, from merging 100% of it" in lines["time"]
    assert finished.out.count("reads:") == 2
    assert "the weight of" in finished.err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_difference_is_a_table_a_picture_and_numbers(command, make_model, tmp_path):
    picture, numbers = tmp_path / "diff.svg", tmp_path / "diff.json"
    finished = command(
        "merge", "diff", make_model(0), make_model(1), "--plot", picture, "--json", numbers
    )
    assert finished.status == 0, finished.err
    assert "model.layers.1" in finished.out
    assert "all tensors" in finished.out
    assert picture.read_text().lstrip().startswith("<?xml")
    assert len(json.loads(numbers.read_text())["layers"]) == 5
    by_tensor = command("merge", "diff", make_model(0), make_model(1), "--tensors")
    assert "model.layers.1.mlp.up_proj.weight" in by_tensor.out


def test_what_a_difference_is_written_to_is_checked_before_the_work(command, tmp_path):
    for option, place, message in (
        ("--plot", "diff.gif", "cannot be drawn as .gif"),
        ("--plot", "none/diff.svg", "there is no folder"),
        ("--json", "none/diff.json", "there is no folder"),
        ("--json", ".", "is a folder; name a file in it"),
    ):
        finished = command("merge", "diff", "no/a", "no/b", option, tmp_path / place)
        assert finished.status == 2
        assert message in finished.err


def test_models_to_compare_are_named_as_in_a_configuration(command, make_model, tmp_path):
    for text, message in (
        (f"{make_model(0)}+x", "is a model with an adapter; merge the two first"),
        (f"{make_model(0)}@main", "is a folder here, which has no revision"),
        (f"{tmp_path}/none", "there is no such folder"),
    ):
        finished = command("merge", "diff", text, make_model(1))
        assert finished.status == 2
        assert message in finished.err


def test_a_plan_without_room_for_a_sample_is_a_plan(command, config, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/dev/full")
    finished = command("merge", "plan", config)
    assert finished.status == 0, finished.err
    assert "time:      not estimated (" in finished.out


def test_it_is_said_if_nothing_could_be_compiled(command, config, tmp_path, monkeypatch):
    monkeypatch.setattr(kernels, "library", lambda: None)
    for words in (("plan", config), (config, tmp_path / "out")):
        finished = command("merge", *words)
        assert finished.status == 0, finished.err
        assert finished.err.count("the compiled loops could not be built") == 1


def test_an_output_among_the_inputs_is_refused(command, config, make_model):
    finished = command("merge", config, make_model(1) / "merged")
    assert finished.status == 2
    assert "lies in the input" in finished.err


def test_help_names_the_commands(command):
    finished = command("merge", "--help")
    assert finished.status == 0
    assert "biomistral merge [OPTIONS] CONFIG OUT | COMMAND" in finished.out
    assert all(name in finished.out for name in ("run", "plan", "diff", "extract-lora"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("density: 0.5", "denstiy: 0.5"), r"unknown.*'density'|did you mean"),
        (("density: 0.5", "density: 0"), "density"),
        (("density: 0.5", "density: 1.5"), "density"),
        (("ties", "tise"), "ties"),
        (("dtype: bfloat16", "dtype: int4"), "dtype"),
    ],
)
def test_a_wrong_configuration_is_one_clear_error(command, config, tmp_path, change, message):
    config.write_text(config.read_text().replace(*change))
    finished = command("merge", config, tmp_path / "out")
    assert finished.status == 2
    assert finished.err.startswith(f"error: {config}")
    assert re.search(message, finished.err)
    assert not (tmp_path / "out").exists()


def test_a_broken_input_is_one_clear_error(command, config, make_model, tmp_path):
    broken = shutil.copytree(make_model(1), tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, broken / "model.safetensors")
    config.write_text(config.read_text().replace(str(make_model(1)), str(broken)))
    finished = command("merge", config, tmp_path / "out")
    assert finished.status == 2
    assert "model.norm.weight holds NaN or infinity" in finished.err
    assert "--allow-non-finite" in finished.err
    assert command("merge", config, tmp_path / "out", "--allow-non-finite").status == 0


def test_a_configuration_that_is_not_there_is_said(command, tmp_path):
    finished = command("merge", tmp_path / "none.yml", tmp_path / "out")
    assert finished.status == 2
    assert "there is no such configuration" in finished.err


@pytest.mark.parametrize(
    ("text", "size"),
    [("5GB", 5 * 10**9), ("500 mb", 5 * 10**8), ("1.5k", 1500), ("1000", 1000), ("2B", 2)],
)
def test_sizes_are_read_as_people_write_them(text, size):
    assert shard_bytes(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1GB", "0", "5PB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(InputError, match="is no size; write it like 5GB"):
        shard_bytes(text)


def test_an_adapter_is_made_and_merges_back(command, make_model, write, tmp_path):
    base, tuned, adapter = make_model(0), make_model(1), tmp_path / "adapter"
    finished = command("merge", "extract-lora", tuned, base, adapter, "--rank", "4")
    assert finished.status == 0, finished.err
    assert "warning:" in finished.err  # embeddings and norms differ, too
    config = write(
        f"merge_method: passthrough\nmodels: [{{model: {base}+{adapter}}}]\n", "back.yml"
    )
    finished = command("merge", config, tmp_path / "back")
    assert finished.status == 0, finished.err
    name = "model.layers.0.mlp.up_proj.weight"
    weights = [
        load_file(folder / "model.safetensors")[name] for folder in (base, tuned, tmp_path / "back")
    ]
    assert (weights[2] - weights[1]).norm() < (weights[0] - weights[1]).norm()
