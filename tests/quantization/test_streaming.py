from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen3Config,
)

from biomistral.errors import ModelError
from biomistral.models.awq import PackedLinear
from biomistral.models.checkpoints import Checkpoint
from biomistral.quantization.awq import round_to_nearest
from biomistral.quantization.decoder import LINEARS, Errors
from biomistral.quantization.streaming import open_layered, quantize_layers, write_quantized

GROUP_SIZE = 16


def quantize_model(model, rows, group_size) -> tuple[dict[str, torch.Tensor], Errors]:
    """Save a model and quantize what was saved."""
    with tempfile.TemporaryDirectory() as folder:
        plain, work, out = (Path(folder) / name for name in ("plain", "work", "out"))
        model.save_pretrained(plain)
        work.mkdir()
        out.mkdir()
        errors = quantize_saved(plain, list(rows), work, out, group_size)
        return load_file(out / "model.safetensors"), errors


def quantize_saved(plain: Path, rows, work: Path, out: Path, group_size=GROUP_SIZE) -> Errors:
    layered = open_layered(Checkpoint(plain), torch.device("cpu"), group_size)
    errors = quantize_layers(layered, rows, group_size, work)
    write_quantized(layered, work, out)
    return errors


def load(folder) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def drawn_rows(num_rows: int = 6, seed: int = 0) -> list[tuple[torch.Tensor, tuple[int, ...]]]:
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randint(3, 500, (48,), generator=generator), (20, 28)) for _ in range(num_rows)]


def llama(**changes) -> LlamaForCausalLM:
    """A tiny Llama with biases everywhere and as many value heads as query heads."""
    config = LlamaConfig(
        vocab_size=600,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        attention_bias=True,
        mlp_bias=True,
        **changes,
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = LlamaForCausalLM(config).eval()
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                parameter.data.normal_(std=0.1)
    return model


def with_outlier_channels(model: torch.nn.Module, factor: float = 30.0) -> torch.nn.Module:
    """Make two inputs of each layer stand out, as they do in trained models of some size."""
    for layer in model.model.layers:
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            norm.weight.data[[5, 9]] *= factor
        layer.mlp.up_proj.weight.data[[7, 30]] *= factor
    return model


def plain_weights(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a plain checkpoint that an awq checkpoint stands for, in float32."""
    packed: dict[str, dict[str, torch.Tensor]] = {}
    plain = {}
    for name, tensor in tensors.items():
        linear, _, part = name.rpartition(".")
        if part in {"qweight", "qzeros", "scales"}:
            packed.setdefault(linear, {})[part] = tensor
        else:
            plain[name] = tensor.float()
    return plain | {
        f"{name}.weight": PackedLinear(**parts).weight() for name, parts in packed.items()
    }


def relative_logit_error(original: torch.nn.Module, weights: dict[str, torch.Tensor]) -> float:
    """Distance of the logits of two models on rows that were not calibrated on."""
    changed = type(original)(original.config).eval()
    changed.load_state_dict(weights)
    ids = torch.stack([row for row, _ in drawn_rows(4, seed=99)])
    with torch.no_grad():
        expected, found = original(ids).logits, changed(ids).logits
    return float((found - expected).norm() / expected.norm())


def rounded_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Plain rounding to 4 bits of the same layers, with the same groups."""
    return {
        name: round_to_nearest(tensor, GROUP_SIZE).weight() if "_proj.weight" in name else tensor
        for name, tensor in model.state_dict().items()
    }


@pytest.mark.parametrize("make", ["grouped queries", "one value head per query head, biases"])
def test_outlier_channels_hurt_awq_far_less_than_plain_rounding(make, make_model):
    def fresh(seed: int) -> torch.nn.Module:
        return with_outlier_channels(
            load(make_model(seed)) if make == "grouped queries" else llama()
        )

    with_awq = with_rounding = 0.0
    for seed in range(4 if make == "grouped queries" else 1):  # one draw alone is a matter of luck
        model = fresh(seed)
        tensors, errors = quantize_model(fresh(seed), drawn_rows(), GROUP_SIZE)
        with_awq += relative_logit_error(model, plain_weights(tensors))
        with_rounding += relative_logit_error(model, rounded_weights(model))
    assert with_awq < 0.8 * with_rounding
    assert set(errors.means()["output"]) == {name.rpartition(".")[2] for name in LINEARS}
    assert all(0 < value < 0.3 for value in errors.means()["output"].values())


def test_a_norm_gives_up_what_the_layers_behind_it_are_scaled_by():
    model = with_outlier_channels(llama())
    tensors, _ = quantize_model(with_outlier_channels(llama()), drawn_rows(), GROUP_SIZE)
    norm = "model.layers.0.input_layernorm.weight"
    scale = model.state_dict()[norm] / tensors[norm].float()
    assert scale[5] > 2 * scale.median()
    weights = plain_weights(tensors)
    for kind in ("q_proj", "k_proj"):  # these are not cut
        name = f"model.layers.0.self_attn.{kind}.weight"
        exact = model.state_dict()[name] * scale
        step = (
            tensors[name.replace("weight", "scales")].float().T.repeat_interleave(GROUP_SIZE, dim=1)
        )
        assert bool(((weights[name] - exact).abs() <= 0.52 * step).all())


def test_noted_output_error_is_that_of_the_layer_on_the_calibration_tokens():
    model = with_outlier_channels(llama()).requires_grad_(False)
    linear, norm = model.model.layers[0].self_attn.q_proj, model.model.layers[0].input_layernorm
    seen: list[torch.Tensor] = []
    linear.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0][0]))
    for ids, lengths in drawn_rows():
        for document in ids.split(lengths):
            model(document[None])
    tensors, errors = quantize_model(with_outlier_channels(llama()), drawn_rows(), GROUP_SIZE)
    prefix = "model.layers.0."
    quantized = plain_weights(tensors)[f"{prefix}self_attn.q_proj.weight"]
    scale = norm.weight / tensors[f"{prefix}input_layernorm.weight"].float()
    inputs = torch.cat(seen)
    expected = inputs @ linear.weight.T
    difference = (inputs / scale) @ quantized.T - expected
    relative = float(difference.norm() / expected.norm())
    assert errors.output["q_proj"][0] == pytest.approx(relative, rel=0.01)


def test_documents_of_one_row_are_calibrated_as_if_each_had_a_row_of_its_own(make_model):
    def errors_with(rows) -> dict[str, float]:
        return quantize_model(load(make_model(0)), rows, GROUP_SIZE)[1].means()["output"]

    rows = drawn_rows(3)
    apart = [(part, (len(part),)) for ids, lengths in rows for part in ids.split(lengths)]
    joined = [(ids, (len(ids),)) for ids, _ in rows]
    expected = errors_with(apart)
    assert errors_with(rows) == pytest.approx(expected, rel=1e-4)
    assert errors_with(joined) != pytest.approx(expected, rel=1e-4)


def test_everything_is_stored_as_half_or_packed(make_model):
    tensors, _ = quantize_model(load(make_model(0)), drawn_rows(1), GROUP_SIZE)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16, torch.int32}
    assert tensors["model.layers.1.mlp.down_proj.qweight"].shape == (128, 64 // 8)
    assert tensors["model.layers.1.mlp.down_proj.qzeros"].shape == (128 // GROUP_SIZE, 64 // 8)
    assert tensors["model.layers.1.mlp.down_proj.scales"].shape == (128 // GROUP_SIZE, 64)
    assert tensors["lm_head.weight"].shape[1] == 64
    assert not any(name.endswith("_proj.weight") for name in tensors)


def test_a_tied_head_is_stored_once(make_model):
    tensors, _ = quantize_model(
        load(make_model(0, tie_word_embeddings=True)), drawn_rows(1), GROUP_SIZE
    )
    assert "lm_head.weight" not in tensors
    assert "model.embed_tokens.weight" in tensors


def test_a_layer_of_zeros_has_no_error(make_model):
    model = load(make_model(0))
    model.model.layers[0].mlp.down_proj.weight.data.zero_()
    _, errors = quantize_model(model, drawn_rows(1), GROUP_SIZE)
    assert errors.weight["down_proj"][0] == 0.0
    assert errors.output["down_proj"][0] == 0.0


@pytest.mark.parametrize("value", [float("nan"), 1e6])
def test_numbers_that_float16_cannot_hold_are_refused(make_model, value):
    model = load(make_model(0))
    model.model.norm.weight.data[0] = value
    with pytest.raises(ModelError, match=r"model\.norm\.weight: has numbers that are not finite"):
        quantize_model(model, drawn_rows(1), GROUP_SIZE)


def test_a_broken_linear_layer_is_refused(make_model):
    model = load(make_model(0))
    model.model.layers[0].self_attn.v_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(
        ModelError, match=r"0\.self_attn\.v_proj\.weight holds numbers that are not"
    ):
        quantize_model(model, drawn_rows(1), GROUP_SIZE)


def test_a_run_that_was_killed_goes_on_with_the_layer_it_was_at(make_model, tmp_path):
    rows = drawn_rows(2)
    folders = {name: tmp_path / name for name in ("whole", "work", "out", "out2")}
    for folder in folders.values():
        folder.mkdir()
    model = make_model(0)
    expected = quantize_saved(model, rows, folders["whole"], folders["out"])
    layered = open_layered(Checkpoint(model), torch.device("cpu"), GROUP_SIZE)

    def killed_at_layer_one(done: float, total: float | None, text: str) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize_layers(layered, rows, GROUP_SIZE, folders["work"], progress=killed_at_layer_one)
    # As if killed once more while the second layer's activations were written.
    (folders["work"] / "hidden-002.partial").write_bytes(b"half a row")
    steps: list[float] = []
    layered = open_layered(Checkpoint(model), torch.device("cpu"), GROUP_SIZE)
    found = quantize_layers(
        layered, rows, GROUP_SIZE, folders["work"], progress=lambda done, *_: steps.append(done)
    )
    assert steps == [1, 2]
    assert found == expected
    write_quantized(layered, folders["work"], folders["out2"])
    weights = "model.safetensors"
    assert (folders["out2"] / weights).read_bytes() == (folders["out"] / weights).read_bytes()


def test_a_layer_that_was_run_but_not_packed_is_done_again(make_model, tmp_path):
    rows, model = drawn_rows(2), make_model(0)
    for name in ("work", "out", "out2"):
        (tmp_path / name).mkdir()
    quantize_saved(model, rows, tmp_path / "work", tmp_path / "out")
    layered = open_layered(Checkpoint(model), torch.device("cpu"), GROUP_SIZE)

    def broken_off(*_: object) -> None:
        raise OSError("no space left")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("biomistral.quantization.streaming.save_file", broken_off)
        (tmp_path / "again").mkdir()
        with pytest.raises(OSError, match="no space"):
            quantize_layers(layered, rows, GROUP_SIZE, tmp_path / "again")
    assert sorted(p.name for p in (tmp_path / "again").iterdir()) == [
        "hidden-000.bin",
        "hidden-001.bin",
    ]
    quantize_saved(model, rows, tmp_path / "again", tmp_path / "out2")
    weights = "model.safetensors"
    assert (tmp_path / "out2" / weights).read_bytes() == (tmp_path / "out" / weights).read_bytes()


def test_activations_are_those_of_the_whole_model(make_model):
    model = load(make_model(0))
    (ids, lengths), *_ = drawn_rows(1)
    layered = open_layered(Checkpoint(make_model(0)), torch.device("cpu"), GROUP_SIZE)
    hidden = layered.embed(ids)
    with torch.no_grad():
        for index in range(2):
            hidden = layered.run(layered.layer(index), hidden, lengths)
        documents = [model.model(d[None], output_hidden_states=True) for d in ids.split(lengths)]
        normed = model.model.norm(hidden)
    expected = torch.cat([found.last_hidden_state[0] for found in documents])
    assert torch.allclose(normed, expected, atol=1e-5)


@pytest.mark.parametrize("config_class", [Qwen2Config, Qwen3Config])
def test_other_decoders_of_the_kind_are_quantized_too(config_class):
    config = config_class(
        vocab_size=600,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = AutoModelForCausalLM.from_config(config).eval()
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                parameter.data.normal_(std=0.1)
    tensors, _ = quantize_model(model, drawn_rows(), 32)
    assert relative_logit_error(model, plain_weights(tensors)) < 0.3


def test_a_scale_of_a_value_head_serves_all_heads_that_read_it(make_model):
    # Nothing but rounding may change: with the scales taken out again, the weights come back.
    model = load(make_model(3))
    model.model.layers[0].self_attn.v_proj.weight.data[5] *= 40
    tensors, _ = quantize_model(model, drawn_rows(), GROUP_SIZE)
    weights = plain_weights(tensors)
    prefix = "model.layers.0.self_attn."
    stored = model.state_dict()
    value = weights[f"{prefix}v_proj.weight"]
    norm = "model.layers.0.input_layernorm.weight"
    value_scale = ((value * (weights[norm] / stored[norm])).norm(dim=1)) / stored[
        f"{prefix}v_proj.weight"
    ].norm(dim=1)
    output_scale = weights[f"{prefix}o_proj.weight"].norm(dim=0) / stored[
        f"{prefix}o_proj.weight"
    ].norm(dim=0)
    by_head = output_scale.view(2, 2, 16)  # two value heads, two heads each, width 16
    assert float(output_scale[5]) > 1.5 * float(output_scale.median())
    assert torch.allclose(by_head[:, 0], by_head[:, 1], rtol=0.15)
    assert torch.allclose(by_head.mean(dim=1).flatten() * value_scale, torch.ones(32), rtol=0.2)


def test_a_missing_or_misshapen_weight_is_named(make_model, tmp_path):
    source = make_model(0)
    stored = load_file(source / "model.safetensors")
    (tmp_path / "config.json").write_text((source / "config.json").read_text())
    name = "model.layers.1.mlp.up_proj.weight"
    for changed, message in (
        ({key: value for key, value in stored.items() if key != name}, f"lacks the weight {name}"),
        ({**stored, name: torch.zeros(8, 64)}, rf"{name} has the shape \[8, 64\], its config says"),
    ):
        save_file(changed, tmp_path / "model.safetensors", metadata={"format": "pt"})
        layered = open_layered(Checkpoint(tmp_path), torch.device("cpu"), GROUP_SIZE)
        layered.layer(0)
        with pytest.raises(ModelError, match=message):
            layered.layer(1)
