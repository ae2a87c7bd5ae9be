"""Written checkpoints: what Transformers and the library read back, in shards of any size."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from biomistral.models.checkpoints import INDEX
from biomistral.models.safetensors_files import TensorSpec
from biomistral.models.writing import CheckpointWriter, copy_companions, write_config

SPECS = [
    TensorSpec("a", (2, 3), "float32"),  # 24 bytes
    TensorSpec("b", (4,), "bfloat16"),  # 8 bytes
    TensorSpec("c", (), "float16"),  # 2 bytes
    TensorSpec("d", (40,), "uint8"),  # 40 bytes
]


def write_all(folder, **options):
    folder.mkdir()
    writer = CheckpointWriter(folder, SPECS, **options)
    generator = torch.Generator().manual_seed(0)
    values = {
        spec.name: (torch.rand(spec.shape, generator=generator) * 9).to(getattr(torch, spec.dtype))
        for spec in SPECS
    }
    for name in reversed(values):  # any order will do
        writer.write(name, values[name])
    writer.finish()
    return values


def test_what_is_written_the_library_reads_back(tmp_path):
    values = write_all(tmp_path / "out")
    loaded = load_file(tmp_path / "out" / "model.safetensors")
    assert not (tmp_path / "out" / INDEX).exists()
    assert all(torch.equal(loaded[name], value) for name, value in values.items())


def test_shards_hold_no_more_than_asked_and_the_index_says_where(tmp_path):
    folder = tmp_path / "out"
    values = write_all(folder, max_shard_bytes=33)
    index = json.loads((folder / INDEX).read_text())
    assert index["metadata"] == {"total_size": 74}
    files = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    assert sorted(path.name for path in folder.glob("*.safetensors")) == files
    assert index["weight_map"] == {"a": files[0], "b": files[0], "c": files[1], "d": files[2]}
    for name, value in values.items():
        assert torch.equal(load_file(folder / index["weight_map"][name])[name], value)


def test_blocks_are_converted_and_joined(tmp_path):
    writer = CheckpointWriter(tmp_path, [TensorSpec("a", (5,), "bfloat16")])
    values = torch.arange(5) + 0.123
    writer.write_blocks("a", values.split(2))
    loaded = load_file(tmp_path / "model.safetensors")["a"]
    assert torch.equal(loaded, values.to(torch.bfloat16))


def test_a_writer_notices_what_was_forgotten(tmp_path):
    writer = CheckpointWriter(tmp_path, SPECS)
    with pytest.raises(AssertionError, match="never written"):
        writer.finish()
    with pytest.raises(AssertionError, match="bytes written"):
        writer.write_blocks("a", [torch.zeros(5)])


def test_a_config_names_its_type_once(tmp_path):
    write_config(tmp_path, {"torch_dtype": "float16", "x": 1}, "bfloat16")
    assert json.loads((tmp_path / "config.json").read_text()) == {"dtype": "bfloat16", "x": 1}


def test_companions_are_copied_and_nothing_else(tiny_model, tmp_path):
    found = copy_companions(tiny_model, tmp_path)
    assert "tokenizer.json" in found
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(found)
    assert not {"config.json", "model.safetensors"} & set(found)


def test_companions_name_no_code_of_their_own(tiny_model, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(tiny_model, source)
    config = json.loads((source / "tokenizer_config.json").read_text())
    code = {"AutoTokenizer": ["owner/model--code.Own", None]}
    (source / "tokenizer_config.json").write_text(json.dumps({**config, "auto_map": code}))
    copy_companions(source, tmp_path)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text()) == config


def test_a_writer_that_resumes_keeps_finished_shards_and_no_others(tmp_path):
    first = CheckpointWriter(tmp_path, SPECS, max_shard_bytes=33)
    one, two, three = first.shards
    assert first.unfinished == [one, two, three]
    first.write("c", torch.tensor(1.5))
    first.finish_shard(two)
    first.write("a", torch.ones(2, 3))

    second = CheckpointWriter(tmp_path, SPECS, max_shard_bytes=33, resume=True)
    assert second.unfinished == [one, three]
    assert load_file(two)["c"] == 1.5
    assert not load_file(one)["a"].any()
    second.finish_shard(one)
    second.finish_shard(three)
    second.finish()


def test_a_writer_that_does_not_resume_starts_from_nothing(tmp_path):
    CheckpointWriter(tmp_path, SPECS).finish_shard(tmp_path / "model.safetensors")
    assert CheckpointWriter(tmp_path, SPECS).unfinished == [tmp_path / "model.safetensors"]
