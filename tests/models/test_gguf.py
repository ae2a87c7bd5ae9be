from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from biomistral.errors import MissingDependencyError, ModelError
from biomistral.models.checkpoints import Checkpoint
from biomistral.models.gguf import gguf_context_tokens, gguf_file, load_gguf_model
from biomistral.models.loading import load_model, load_tokenizer
from biomistral.quantization.gguf_writing import write_gguf

gguf = pytest.importorskip("gguf")


@pytest.fixture(scope="module")
def file(tmp_path_factory, tiny_model) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    tokenizer = load_tokenizer(tiny_model)
    write_gguf(Checkpoint(tiny_model), path, "bf16", name="small", tokenizer=tokenizer)
    return path


def test_a_file_is_found_as_itself_and_in_its_folder(file, tmp_path):
    assert gguf_file(file) == gguf_file(file.parent) == file
    assert gguf_file(tmp_path) is None
    assert gguf_file(tmp_path / "gone.gguf") is None


def test_other_weights_beside_it_are_what_the_folder_is_about(file, tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "both")
    shutil.copy(file, folder)
    assert gguf_file(folder) is None


def test_several_files_are_listed(file, tmp_path):
    for name in ("a.gguf", "b.gguf"):
        shutil.copy(file, tmp_path / name)
    with pytest.raises(ModelError, match=r"2 GGUF files; name one of them: a\.gguf, b\.gguf"):
        gguf_file(tmp_path)


def test_model_and_tokenizer_are_loaded_from_the_file_alone(file, tiny_model):
    ids = load_tokenizer(tiny_model)("The fever of the river.")["input_ids"]
    assert load_tokenizer(file)("The fever of the river.")["input_ids"] == ids
    cpu = torch.device("cpu")
    with torch.no_grad():
        expected = load_model(tiny_model, precision="float32", device=cpu)(torch.tensor([ids]))
        for path in (file, file.parent):
            model = load_model(path, precision="float32", device=cpu)
            assert not model.training
            found = model(torch.tensor([ids])).logits
            assert float((found - expected.logits).norm() / expected.logits.norm()) < 0.005


def test_nothing_is_printed_while_a_file_is_read(file, capfd):
    load_model(file, precision="float32")
    assert capfd.readouterr() == ("", "")


def test_the_tokenizer_beside_the_file_is_preferred(file, tiny_model, tmp_path):
    shutil.copy(file, tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_model / name, tmp_path)
    text = "  two blanks in front"
    assert (
        load_tokenizer(tmp_path)(text)["input_ids"] == load_tokenizer(tiny_model)(text)["input_ids"]
    )


def test_context_is_read_from_the_header(file):
    assert gguf_context_tokens(file) == 512


def test_an_architecture_that_only_llama_cpp_knows_is_refused(tmp_path):
    path = tmp_path / "strange.gguf"
    writer = gguf.GGUFWriter(path, "rwkv7")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(
        ModelError, match=r"strange\.gguf: cannot be read by Transformers .*only llama"
    ):
        load_gguf_model(path, torch.float32)


def test_a_file_cut_short_is_refused(file, tmp_path):
    path = tmp_path / "cut.gguf"
    path.write_bytes(file.read_bytes()[:-4000])
    with pytest.raises(ModelError, match=r"cut\.gguf: cannot be read"):
        load_gguf_model(path, torch.float32)
    path.write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"cut\.gguf: cannot be read"):
        load_gguf_model(path, torch.float32)


def test_without_the_library_its_line_is_named(file, monkeypatch):
    monkeypatch.setattr("biomistral.errors.importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'biomistral\[quantization\]'"):
        load_gguf_model(file, torch.float32)


def test_what_is_read_is_what_was_stored(file, tiny_model):
    exact = Checkpoint(tiny_model).tensor("model.layers.0.self_attn.q_proj.weight")
    read = load_gguf_model(file, torch.float32).model.layers[0].self_attn.q_proj.weight
    assert torch.allclose(read, exact, rtol=1e-2)
