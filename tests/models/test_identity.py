from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from biomistral import artifacts
from biomistral.errors import InputError
from biomistral.models.identity import model_digest


@pytest.fixture
def copy(tiny_model, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "copy"))


def test_a_copy_is_the_same_model(tiny_model, copy):
    assert model_digest(copy) == model_digest(tiny_model)


def test_one_bit_of_the_weights_makes_another_model_even_with_the_same_size_and_time(copy):
    before, path = model_digest(copy), copy / "model.safetensors"
    status, content = path.stat(), bytearray(path.read_bytes())
    content[-1001] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    assert model_digest(copy) != before


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_config_and_tokenizer_belong_to_the_model(copy, name):
    before = model_digest(copy)
    (copy / name).write_text((copy / name).read_text() + " ")
    assert model_digest(copy) != before


@pytest.mark.parametrize(
    "name", ["README.md", artifacts.MANIFEST, "training_log.jsonl", "a.volatile.json"]
)
def test_notes_beside_it_do_not(copy, name):
    before = model_digest(copy)
    (copy / name).write_text("notes")
    assert model_digest(copy) == before


def test_a_file_of_the_hubs_cache_is_not_read_again(copy):
    blob = copy.parent / "blobs" / ("ab" * 32)
    blob.parent.mkdir()
    (copy / "model.safetensors").rename(blob)
    (copy / "model.safetensors").symlink_to(blob)
    read = []

    def digest(path: Path) -> str:
        read.append(path.name)
        return artifacts.file_digest(path)

    model_digest(copy, digest)
    assert "config.json" in read
    assert "model.safetensors" not in read


def test_a_file_that_cannot_be_read_is_named(copy):
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    with pytest.raises(InputError, match=r"config\.json: cannot be read \(Permission denied\)"):
        model_digest(copy, refuse)
