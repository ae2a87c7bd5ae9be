"""AWQ checkpoints left in four bits: the same model in a quarter of the memory."""

from __future__ import annotations

import gc
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from biomistral.errors import ModelError
from biomistral.models import hybrid
from biomistral.models.awq import awq_config, load_awq_model, pack_linear
from biomistral.models.continuations import TextEncoder
from biomistral.models.four_bit import StoredEmbedding, load_four_bit_model
from biomistral.models.generating import Engine, Sampling
from biomistral.models.hybrid import HybridLinear, is_available
from biomistral.models.loading import load_model, load_tokenizer, num_weights
from biomistral.models.scoring import score_requests
from biomistral.records import Request

pytestmark = pytest.mark.skipif(not is_available(), reason="PyTorch has no int4 kernel here")
GROUP = 64


def packed(folder, out):
    """Round a checkpoint to 4 bits, in the plainest way."""
    shutil.copytree(folder, out)
    tensors = {}
    for name, weight in load_file(folder / "model.safetensors").items():
        if not name.endswith("_proj.weight"):
            tensors[name] = weight.half()
            continue
        groups = weight.float().unflatten(1, (-1, GROUP))
        low, high = groups.amin(-1), groups.amax(-1)
        scales = ((high - low) / 15).half()
        zeros = (-low / scales.float()).round().clamp(0, 15)
        levels = ((groups / scales.float()[..., None]).round() + zeros[..., None]).clamp(0, 15)
        made = pack_linear(levels.flatten(1).byte(), zeros.byte(), scales)
        for part, tensor in made.items():
            tensors[name.removesuffix("weight") + part] = tensor
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(
        json.dumps({**config, "quantization_config": awq_config(GROUP)})
    )
    return out


@pytest.fixture(scope="module")
def checkpoint(make_model, tmp_path_factory):
    wide = make_model(3, hidden_size=128, intermediate_size=256, num_attention_heads=4)
    return packed(wide, tmp_path_factory.mktemp("four-bit") / "model")


def changed(checkpoint, out, change):
    shutil.copytree(checkpoint, out)
    tensors = load_file(out / "model.safetensors")
    change(tensors)
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
    return out


def bytes_of(model):
    tensors = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def requests(number=5):
    return [
        Request(str(i), "t", "en", 0, 1, "letter", "bark " * i + "Answer:(", ("A", "B"), 0)
        for i in range(number)
    ]


def test_it_is_the_model_of_the_plain_reader_within_bfloat16(checkpoint):
    tokens = torch.tensor([[1, 300, 310, 320, 330] * 8])
    with torch.inference_mode():
        found = load_four_bit_model(checkpoint)(tokens).logits.float()
        expected = load_awq_model(checkpoint, "float32")(tokens).logits
    assert float((found - expected).norm() / expected.norm()) < 0.03


def test_it_is_what_is_loaded_on_a_cpu_in_bfloat16_and_only_then(checkpoint):
    cpu = torch.device("cpu")
    layers = {
        precision: load_model(checkpoint, precision=precision, device=cpu).model.layers[0]
        for precision in ("bfloat16", "float32")
    }
    assert isinstance(layers["bfloat16"].mlp.up_proj, HybridLinear)
    assert not isinstance(layers["float32"].mlp.up_proj, HybridLinear)


def test_without_the_kernel_the_plain_reader_serves(checkpoint, monkeypatch):
    monkeypatch.setattr(hybrid, "is_available", lambda: False)
    model = load_model(checkpoint, device=torch.device("cpu"))
    assert type(model.model.layers[0].mlp.up_proj) is torch.nn.Linear


def test_its_layers_take_little_more_than_a_quarter_of_the_memory(checkpoint):
    few, plain = (
        bytes_of(load(checkpoint).model.layers) for load in (load_four_bit_model, load_awq_model)
    )
    assert few < 0.32 * plain


def test_the_embedding_stays_in_its_file_and_gives_the_same_rows(checkpoint):
    model = load_four_bit_model(checkpoint)
    embedding, stored = model.get_input_embeddings(), load_file(checkpoint / "model.safetensors")
    assert isinstance(embedding, StoredEmbedding)
    expected = stored["model.embed_tokens.weight"]
    ids = torch.tensor([[3, 5], [0, len(expected) - 1]])
    assert torch.equal(embedding(ids), expected.bfloat16()[ids])
    assert model.dtype == torch.bfloat16
    assert num_weights(model) == num_weights(load_awq_model(checkpoint))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/maps")
def test_of_the_file_nothing_but_the_embedding_is_in_memory_after_loading(checkpoint):
    model = load_four_bit_model(checkpoint)
    maps = Path("/proc/self/maps").read_text()
    assert maps.count(str(checkpoint / "model.safetensors")) == 1
    del model
    gc.collect()
    assert str(checkpoint / "model.safetensors") not in Path("/proc/self/maps").read_text()


def test_an_embedding_that_the_head_shares_is_in_bfloat16(checkpoint, tmp_path):
    folder = changed(checkpoint, tmp_path / "tied", lambda tensors: tensors.pop("lm_head.weight"))
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tie_word_embeddings": True}))
    model = load_four_bit_model(folder)
    assert model.get_input_embeddings().weight.dtype == torch.bfloat16
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_scores_are_the_same_bits_in_any_batch(checkpoint):
    model, encoder = load_model(checkpoint), TextEncoder(load_tokenizer(checkpoint))
    alone = [score_requests(model, encoder, [each]).logprobs[0] for each in requests()]
    for batch_tokens in (64, 16_384):
        assert score_requests(
            model, encoder, requests(), batch_tokens=batch_tokens
        ).logprobs == alone  # fmt: skip


def test_answers_are_the_same_bits_in_any_company(checkpoint):
    engine = Engine(load_model(checkpoint), load_tokenizer(checkpoint))
    sampling = Sampling(max_new_tokens=6, temperature=1.0, seed=1, ignore_eos=True)

    def answers(prompts):
        jobs = [engine.submit(prompt, sampling) for prompt in prompts]
        while engine.step():
            pass
        return [list(job.pieces()) for job in jobs]

    prompts = [[1, 300 + i, 310] for i in range(5)]
    assert answers(prompts) == [answers([prompt])[0] for prompt in prompts]


def test_it_is_not_saved_from_memory(checkpoint, tmp_path):
    with pytest.raises(ModelError, match="copy the folder that it was loaded from"):
        load_four_bit_model(checkpoint).save_pretrained(tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("model.norm.weight"), "lacks the weight 'model.norm.weight'"),
        (
            lambda t: t.update({"model.extra.weight": torch.zeros(2)}),
            "holds weights of 'model.extra'",
        ),
        (
            lambda t: t.update({"model.norm.weight": torch.zeros(3)}),
            r"model.norm.weight has the shape \(3,\), another one",
        ),
        (
            lambda t: [
                t.pop(f"model.layers.0.mlp.up_proj.{p}") for p in ("qweight", "qzeros", "scales")
            ],
            "lacks the weight 'model.layers.0.mlp.up_proj.weight'",
        ),
        (
            lambda t: t.pop("model.layers.0.mlp.up_proj.scales"),
            "up_proj has qweight, qzeros but needs",
        ),
    ],
    ids=["missing", "unknown", "shape", "layer", "part"],
)
def test_a_damaged_checkpoint_is_refused(checkpoint, tmp_path, change, message):
    with pytest.raises(ModelError, match=message):
        load_four_bit_model(changed(checkpoint, tmp_path / "model", change))


def test_a_layer_of_another_shape_than_the_config_is_refused(checkpoint, tmp_path):
    def swap(tensors):
        for part in ("qweight", "qzeros", "scales"):
            name = "model.layers.0.mlp.{}_proj." + part
            tensors[name.format("up")] = tensors[name.format("down")].clone()

    with pytest.raises(ModelError, match="up_proj has the shape"):
        load_four_bit_model(changed(checkpoint, tmp_path / "model", swap))


def test_use_changes_no_weight_and_writes_none_out(checkpoint):
    """Other libraries repack or unpack weights at their first use; what is saved then is broken."""
    before = (checkpoint / "model.safetensors").read_bytes()
    model = load_four_bit_model(checkpoint)
    weights = {name: weight.clone() for name, weight in model.named_buffers()}
    size = bytes_of(model)
    with torch.no_grad():
        for rows in (1, 40):  # both ways of the hybrid layers
            model(torch.arange(5, 5 + rows)[None])
    assert bytes_of(model) == size
    after = dict(model.named_buffers())
    assert after.keys() == weights.keys()
    assert all(torch.equal(after[name], weight) for name, weight in weights.items())
    assert (checkpoint / "model.safetensors").read_bytes() == before
