"""Pickled weights: read in place, as they are, and never run."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections import OrderedDict

import pytest
import torch

from biomistral.errors import ModelError
from biomistral.models.checkpoints import (
    PICKLED_FILE,
    PICKLED_INDEX,
    Checkpoint,
    check_tokenizer_fits,
)
from biomistral.models.pickled import read_pickled


@pytest.fixture
def pickled_model(tiny_model, tmp_path):
    """The tiny model with its weights as ``torch.save`` writes them, and the weights."""
    folder = tmp_path / "pickled"
    folder.mkdir()
    shutil.copyfile(tiny_model / "config.json", folder / "config.json")
    checkpoint = Checkpoint(tiny_model)
    weights = OrderedDict((name, checkpoint.tensor(name).clone()) for name in checkpoint.tensors)
    torch.save(weights, folder / PICKLED_FILE)
    return folder, weights


def rewritten(file, change):
    """Write the archive again with records that ``change`` made of the list of the old ones."""
    with zipfile.ZipFile(file) as archive:
        records = [(info.filename, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(file, "w") as archive:
        for name, contents in change(records):
            archive.writestr(name, contents)


def values(stored):
    """Read a tensor with nothing but its description."""
    data = bytearray(stored.file.read_bytes()[stored.offset_bytes :][: stored.num_bytes])
    return torch.frombuffer(data, dtype=getattr(torch, stored.dtype)).view(stored.shape)


def test_a_pickled_checkpoint_has_the_same_tensors_as_the_safetensors_one(pickled_model):
    folder, weights = pickled_model
    checkpoint = Checkpoint(folder, allow_pickle=True)
    assert set(checkpoint.tensors) == set(weights)
    for name, value in weights.items():
        assert torch.equal(checkpoint.tensor(name), value)


def test_pickled_shards_are_read_through_their_index(pickled_model):
    folder, weights = pickled_model
    (folder / PICKLED_FILE).unlink()
    names = list(weights)
    shards = {"pytorch_model-1.bin": names[:4], "pytorch_model-2.bin": names[4:]}
    for file, part in shards.items():
        torch.save({name: weights[name] for name in part}, folder / file)
    weight_map = {name: file for file, part in shards.items() for name in part}
    (folder / PICKLED_INDEX).write_text(json.dumps({"weight_map": weight_map}))
    checkpoint = Checkpoint(folder, allow_pickle=True)
    assert all(torch.equal(checkpoint.tensor(name), weights[name]) for name in names)
    weight_map[names[0]] = "pytorch_model-2.bin"
    (folder / PICKLED_INDEX).write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ModelError, match=r"does not fit pytorch_model-1\.bin"):
        Checkpoint(folder, allow_pickle=True)


def test_without_the_flag_pickles_are_refused_and_the_flag_is_named(pickled_model):
    with pytest.raises(ModelError, match=r"pickled \(pytorch_model\.bin\).*--allow-pickle"):
        Checkpoint(pickled_model[0])


def test_every_type_of_number_views_and_shared_values_are_found(tmp_path):
    whole = torch.arange(12.0).view(4, 3)
    saved = {
        "whole": whole,
        "tied": whole,
        "lower rows": whole[2:],
        "parameter": torch.nn.Parameter(torch.randn(3).bfloat16()),
        "half": torch.randn(2, 2).half(),
        "long": torch.tensor([2**40, -1]),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "flags": torch.tensor([True, False, True]),
        "empty": torch.empty(0, 7),
    }
    torch.save(saved, tmp_path / "w.bin")
    stored = {tensor.name: tensor for tensor in read_pickled(tmp_path / "w.bin")}
    assert list(stored) == list(saved)
    assert stored.pop("empty").shape == (0, 7)
    assert all(torch.equal(values(tensor), saved[name]) for name, tensor in stored.items())
    assert stored["whole"].offset_bytes == stored["tied"].offset_bytes


def test_records_in_another_order_do_not_mix_tensors_up(tmp_path):
    """Other writers may sort the records by name; PyTorch's own offsets would then be wrong."""
    saved = {f"t{index}": torch.full((8,), float(index)) for index in range(12)}
    torch.save(saved, tmp_path / "w.bin")
    rewritten(tmp_path / "w.bin", lambda records: sorted(records)[::-1])
    for tensor in read_pickled(tmp_path / "w.bin"):
        assert torch.equal(values(tensor), saved[tensor.name])


def test_the_tokenizer_of_a_pickled_checkpoint_is_checked(pickled_model, tiny_model):
    folder, weights = pickled_model
    shutil.copyfile(tiny_model / "tokenizer.json", folder / "tokenizer.json")
    check_tokenizer_fits(folder, allow_pickle=True)
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"][:-1].clone()
    torch.save(weights, folder / PICKLED_FILE)
    with pytest.raises(ModelError, match="the tokenizer gives the token"):
        check_tokenizer_fits(folder, allow_pickle=True)


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_malicious_pickle_is_refused_and_nothing_of_it_runs(pickled_model, tmp_path):
    folder, weights = pickled_model
    torch.save({**weights, "trap": Malicious(tmp_path / "sprung")}, folder / PICKLED_FILE)
    with pytest.raises(ModelError, match=r"pytorch_model\.bin: cannot be read as plain weights"):
        Checkpoint(folder, allow_pickle=True)
    assert not (tmp_path / "sprung").exists()
    torch.load(folder / PICKLED_FILE, weights_only=False)  # the trap is a real one
    assert (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (
            {"a": torch.zeros(2, 3).T},
            r"w\.bin: a \(float32, shape \[3, 2\]\) is not stored as plain",
        ),
        ({"a": torch.zeros(2).to_sparse()}, "a .* is not stored as plain rows"),
        ({"a": torch.zeros(2, dtype=torch.complex64)}, r"a \(complex64"),
        ({"model": {"a": torch.zeros(2)}}, "'model' is a dict instead of a tensor"),
        ({"a": 3}, "'a' is a int instead of a tensor"),
        ([torch.zeros(2)], "holds a list instead of tensors by name"),
        ({"a": torch.zeros(2, device="meta")}, "a has no values in the file"),
    ],
)
def test_what_is_not_plain_tensors_by_name_is_refused(tmp_path, saved, message):
    torch.save(saved, tmp_path / "w.bin")
    with pytest.raises(ModelError, match=message):
        read_pickled(tmp_path / "w.bin")


def test_the_format_before_zip_is_refused_with_the_way_out(tmp_path):
    file = tmp_path / "w.bin"
    torch.save({"a": torch.zeros(2)}, file, _use_new_zipfile_serialization=False)
    with pytest.raises(ModelError, match=r"format before PyTorch 1\.6.*save_pretrained"):
        read_pickled(file)


def test_a_truncated_file_is_refused(tmp_path):
    file = tmp_path / "w.bin"
    torch.save({"a": torch.zeros(2000)}, file)
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(ModelError, match="cut off"):
        read_pickled(file)


def test_values_that_are_shorter_than_described_are_refused(tmp_path):
    file = tmp_path / "w.bin"
    torch.save({"a": torch.zeros(20)}, file)
    rewritten(file, lambda rs: [(n, c[:40] if n.endswith("data/0") else c) for n, c in rs])
    with pytest.raises(ModelError, match="a needs more bytes than the 40"):
        read_pickled(file)


def test_a_missing_record_is_refused(tmp_path):
    file = tmp_path / "w.bin"
    torch.save({"a": torch.zeros(20)}, file)
    rewritten(file, lambda records: [r for r in records if not r[0].endswith("data/0")])
    with pytest.raises(ModelError, match="cannot be read as plain weights"):
        read_pickled(file)


def test_big_endian_and_compressed_values_are_refused(tmp_path):
    file = tmp_path / "w.bin"
    torch.save({"a": torch.zeros(20)}, file)
    rewritten(file, lambda rs: [(n, b"big" if n.endswith("byteorder") else c) for n, c in rs])
    with pytest.raises(ModelError, match="big-endian"):
        read_pickled(file)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data.pkl", b"0" * 1000)
    with pytest.raises(ModelError, match="is compressed"):
        read_pickled(file)
