"""Safetensors headers: what the library writes is read, what is laid out the library reads."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from biomistral.errors import ModelError
from biomistral.models.safetensors_files import TensorSpec, lay_out, read_header


def header_file(path, header, data_bytes):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(data_bytes))
    return path


def entry(dtype="F32", shape=(2,), begin=0, end=8):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def test_what_the_library_writes_is_found_where_it_lies(tmp_path):
    tensors = {
        "a": torch.arange(6, dtype=torch.float32).view(2, 3),
        "b": torch.tensor([1, 2], dtype=torch.int8),
        "c": torch.tensor(2.5, dtype=torch.bfloat16),
        "empty": torch.empty(0, 4),
    }
    save_file(tensors, tmp_path / "x.safetensors")
    stored = {tensor.name: tensor for tensor in read_header(tmp_path / "x.safetensors")}
    raw = (tmp_path / "x.safetensors").read_bytes()
    for name, tensor in tensors.items():
        place = stored[name]
        assert (place.shape, place.dtype) == (
            tuple(tensor.shape),
            str(tensor.dtype).removeprefix("torch."),
        )
        found = raw[place.offset_bytes : place.offset_bytes + place.num_bytes]
        assert found == tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def test_the_library_reads_what_was_laid_out(tmp_path):
    specs = [
        TensorSpec("odd", (3,), "uint8"),
        TensorSpec("größe", (2, 2), "float32"),
        TensorSpec("half", (5,), "bfloat16"),
    ]
    places = lay_out(tmp_path / "x.safetensors", specs)
    assert all(place.offset_bytes % place.element_bytes == 0 for place in places)
    loaded = load_file(tmp_path / "x.safetensors")
    assert {name: tuple(value.shape) for name, value in loaded.items()} == {
        spec.name: spec.shape for spec in specs
    }


@pytest.mark.parametrize("kept", [0, 4, 20, 75, -1])
def test_a_truncated_file_is_refused_with_its_name(tmp_path, kept):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(4)}, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelError, match=r"x\.safetensors: is damaged or was not copied whole"):
        read_header(path)


@pytest.mark.parametrize(
    ("header", "data_bytes"),
    [
        (b"\xff\xfe", 0),
        (b"[]", 0),
        (b"[" * 100_000, 0),
        ({"a": entry(shape=(2.0,))}, 8),
        ({"a": entry(end=8.5)}, 8),
        ({"a": entry(end=True)}, 8),
        ({"a": entry(shape=(3,))}, 8),
        ({"a": entry(shape=(-1, -2))}, 8),
        ({"a": entry(begin=4, end=12)}, 12),
        ({"a": entry(), "b": entry(begin=4, end=12)}, 12),
        ({"a": entry()}, 9),
        ({"a": {"shape": [2]}}, 8),
        ({"a": entry(shape="ab")}, 8),
    ],
)
def test_a_header_that_does_not_describe_its_file_is_refused(tmp_path, header, data_bytes):
    path = header_file(tmp_path / "x.safetensors", header, data_bytes)
    with pytest.raises(ModelError, match="is damaged"):
        read_header(path)


def test_an_absurd_header_length_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes((1 << 62).to_bytes(8, "little") + b"{}")
    with pytest.raises(ModelError, match="less than its header needs"):
        read_header(path)


def test_an_unknown_type_is_named_as_such(tmp_path):
    path = header_file(tmp_path / "x.safetensors", {"a": entry(dtype="F99")}, 8)
    with pytest.raises(
        ModelError, match=r"x\.safetensors: a is of the type F99, which is not known"
    ):
        read_header(path)
