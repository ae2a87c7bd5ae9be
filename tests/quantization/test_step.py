from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from biomistral import artifacts
from biomistral.errors import InputError, MissingDependencyError, ModelError
from biomistral.models.awq import load_awq_model
from biomistral.models.loading import load_model
from biomistral.models.rows import Row, write_rows
from biomistral.quantization import quantize, step
from biomistral.recipe.settings import (
    AwqQuantization,
    BitsandbytesQuantization,
    GgufQuantization,
    HalfPrecision,
)

AWQ = AwqQuantization(
    name="small-awq", model="base", method="awq", group_size=32, calibration_rows=4
)
BNB = [
    BitsandbytesQuantization(name="int8", model="base", method="bitsandbytes", bits=8),
    BitsandbytesQuantization(name="nf4", model="base", method="bitsandbytes", bits=4),
    BitsandbytesQuantization(
        name="nf4-double", model="base", method="bitsandbytes", bits=4, double_quantization=True
    ),
]


def write_tokens(
    folder: Path, vocabulary_size: int, num_rows: int = 8, num_held_out: int = 0
) -> Path:
    folder.mkdir()
    generator = np.random.default_rng(0)

    def row() -> Row:
        pieces = tuple(generator.integers(3, 500, size=size) for size in (30, 25))
        return Row(pieces, (0, 1))

    write_rows(
        folder,
        [row() for _ in range(num_rows)],
        [row() for _ in range(num_held_out)],
        sequence_length=64,
        vocabulary_size=vocabulary_size,
        eos_id=2,
    )
    return folder


@pytest.fixture(scope="module")
def tokens(tmp_path_factory, tokenizer) -> Path:
    return write_tokens(tmp_path_factory.mktemp("corpus") / "tokens", len(tokenizer))


@pytest.fixture(scope="module")
def awq_folder(tmp_path_factory, tiny_model, tokens) -> Path:
    out = tmp_path_factory.mktemp("quantized") / "small-awq"
    return quantize(AWQ, tiny_model, out, calibration=tokens)


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(5, 69)[None]).logits.float()


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_awq_checkpoint_gives_logits_close_to_the_original(awq_folder, tiny_model):
    original = logits(AutoModelForCausalLM.from_pretrained(tiny_model))
    assert relative_error(logits(load_awq_model(awq_folder, "float32")), original) < 0.2
    assert relative_error(logits(load_awq_model(awq_folder, "bfloat16")), original) < 0.2


def test_awq_config_says_what_every_reader_of_the_format_looks_for(make_model, tokens, tmp_path):
    source = make_model(0, rope_theta=1e6)
    out = quantize(AWQ, source, tmp_path / "out", calibration=tokens)
    config = json.loads((out / "config.json").read_text())
    assert config["quantization_config"] == {
        "quant_method": "awq",
        "bits": 4,
        "group_size": 32,
        "zero_point": True,
        "version": "gemm",
        "modules_to_not_convert": ["lm_head"],
    }
    assert config["dtype"] == config["torch_dtype"] == "float16"
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 1e6
    assert load_awq_model(out).config.rope_parameters["rope_theta"] == 1e6


def test_gemv_stands_for_the_same_weights_as_gemm(awq_folder, tiny_model, tokens, tmp_path):
    settings = AWQ.model_copy(update={"layout": "gemv"})
    out = quantize(settings, tiny_model, tmp_path / "gemv", calibration=tokens)
    config = json.loads((out / "config.json").read_text())
    assert config["quantization_config"]["version"] == "gemv"
    expected = logits(load_awq_model(awq_folder, "float32"))
    assert torch.equal(logits(load_awq_model(out, "float32")), expected)
    assert "GEMV layout" in (out / "README.md").read_text()


def test_too_little_calibration_text_is_refused(tiny_model, tmp_path, tokenizer):
    tokens = write_tokens(tmp_path / "tokens", len(tokenizer), num_rows=1)
    with pytest.raises(
        InputError, match=r"small-awq: 55 tokens of text to calibrate on are too few; .* needs 64"
    ):
        quantize(AWQ, tiny_model, tmp_path / "out", calibration=tokens)


def test_an_interrupted_run_goes_on_and_gives_the_same_bytes(
    awq_folder, tiny_model, tokens, tmp_path
):
    def interrupted(done: float, total: float | None, text: str) -> None:
        if done == 1:
            raise KeyboardInterrupt

    out = tmp_path / "again"
    with pytest.raises(KeyboardInterrupt):
        quantize(AWQ, tiny_model, out, calibration=tokens, progress=interrupted)
    assert not out.exists()
    steps: list[float] = []
    quantize(AWQ, tiny_model, out, calibration=tokens, progress=lambda d, *_: steps.append(d))
    assert steps[0] == 1
    assert artifacts.content_digest(out) == artifacts.content_digest(awq_folder)
    assert list(tmp_path.iterdir()) == [out]


def test_tokenizer_and_card_travel_with_the_weights(awq_folder, tiny_model):
    text = "The fever of the river valley"
    expected = AutoTokenizer.from_pretrained(tiny_model)(text)["input_ids"]
    assert AutoTokenizer.from_pretrained(awq_folder)(text)["input_ids"] == expected
    card = (awq_folder / "README.md").read_text()
    assert "base_model_relation: quantized" in card
    assert "groups of 32" in card


def test_manifest_counts_sizes_and_errors(awq_folder):
    counts = artifacts.read_manifest(awq_folder)["counts"]
    assert counts["calibration_rows"] == 4
    assert counts["calibration_tokens"] == 4 * 55  # padding apart
    assert counts["weight_bytes_after"] < 0.5 * counts["weight_bytes_before"]
    assert len(counts["mean_relative_weight_error"]) == 7
    assert all(0 < value < 0.2 for value in counts["mean_relative_output_error"].values())


def test_two_runs_of_awq_give_the_same_bytes(awq_folder, tiny_model, tokens, tmp_path):
    again = quantize(AWQ, tiny_model, tmp_path / "again", calibration=tokens)
    assert artifacts.content_digest(again) == artifacts.content_digest(awq_folder)


def test_the_seed_draws_the_calibration_rows(awq_folder, tiny_model, tokens, tmp_path):
    other = quantize(AWQ, tiny_model, tmp_path / "other", calibration=tokens, seed=7)
    weights = "model.safetensors"
    assert artifacts.file_digest(other / weights) != artifacts.file_digest(awq_folder / weights)
    fingerprints = [
        artifacts.read_manifest(folder)["fingerprint"] for folder in (other, awq_folder)
    ]
    assert fingerprints[0] != fingerprints[1]


def test_fewer_rows_than_asked_for_are_used_and_counted(tiny_model, tokens, tmp_path):
    wanted = AWQ.model_copy(update={"calibration_rows": 64})
    out = quantize(wanted, tiny_model, tmp_path / "out", calibration=tokens)
    assert artifacts.read_manifest(out)["counts"]["calibration_rows"] == 8


@pytest.mark.parametrize("settings", BNB, ids=lambda settings: settings.name)
def test_bitsandbytes_folder_loads_with_transformers_alone(settings, tiny_model, tmp_path):
    pytest.importorskip("bitsandbytes")
    out = quantize(settings, tiny_model, tmp_path / "out")
    reloaded = AutoModelForCausalLM.from_pretrained(out)
    original = logits(AutoModelForCausalLM.from_pretrained(tiny_model))
    assert relative_error(logits(reloaded), original) < (0.02 if settings.bits == 8 else 0.15)
    AutoTokenizer.from_pretrained(out)
    again = quantize(settings, tiny_model, tmp_path / "again")
    assert artifacts.content_digest(again) == artifacts.content_digest(out)
    counts = artifacts.read_manifest(out)["counts"]
    assert counts["weight_bytes_after"] < counts["weight_bytes_before"]
    assert len(counts["mean_relative_weight_error"]) == 7


def test_on_a_gpu_the_manifest_does_not_promise_the_same_bytes(tiny_model, tmp_path, monkeypatch):
    settings = HalfPrecision(name="small", model="m", method="half")

    def on_gpu(job) -> None:
        step._write_half(job)
        job.draft.device = "cuda"

    folder = quantize(settings, tiny_model, tmp_path / "cpu")
    assert artifacts.read_manifest(folder)["deterministic"] is True
    monkeypatch.setitem(step._METHODS, HalfPrecision, on_gpu)
    folder = quantize(settings, tiny_model, tmp_path / "gpu")
    assert "GPU" in artifacts.read_manifest(folder)["deterministic"]


def test_a_quantized_model_is_not_quantized_again(awq_folder, tokens, tmp_path):
    for settings in (AWQ, BNB[0]):
        with pytest.raises(ModelError, match=r"is quantized already \(quant_method awq\)"):
            quantize(settings, awq_folder, tmp_path / "out", calibration=tokens)
    assert not (tmp_path / "out").exists()


def test_awq_without_calibration_text_is_refused(tiny_model, tmp_path):
    with pytest.raises(InputError, match="small-awq: AWQ needs text to calibrate on"):
        quantize(AWQ, tiny_model, tmp_path / "out")


def test_calibration_rows_of_another_tokenizer_are_refused(tiny_model, tmp_path):
    tokens = write_tokens(tmp_path / "tokens", 32_000)
    with pytest.raises(ModelError, match=r"tokenizer of 32000 tokens, the model has \d+; build"):
        quantize(AWQ, tiny_model, tmp_path / "out", calibration=tokens)


def test_a_corpus_without_rows_is_refused(tiny_model, tmp_path, tokenizer):
    tokens = write_tokens(tmp_path / "tokens", len(tokenizer), num_rows=0)
    with pytest.raises(InputError, match="has no rows to calibrate on"):
        quantize(AWQ, tiny_model, tmp_path / "out", calibration=tokens)


def test_a_failed_run_leaves_nothing(tiny_model, tokens, tmp_path):
    wrong = AWQ.model_copy(update={"group_size": 48})
    with pytest.raises(ModelError, match="not a multiple of group_size 48"):
        quantize(wrong, tiny_model, tmp_path / "out", calibration=tokens)
    assert list(tmp_path.iterdir()) == []


def test_the_room_is_light_and_gives_the_step_each_time():
    code = (
        "import sys, biomistral.quantization as room; heavy = {'torch', 'transformers'};"
        "assert not heavy & sys.modules.keys(); assert callable(room.quantize);"
        "from biomistral.quantization import quantize; assert quantize is room.quantize"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- half precision, GGUF -------------------------------------------------------------------------


def gguf(type_: str) -> GgufQuantization:
    return GgufQuantization(name=f"small-{type_}", model="base", method="gguf", type=type_)


@pytest.mark.parametrize(("dtype", "most"), [("float16", 1e-3), ("bfloat16", 1e-2)])
def test_half_precision_loads_with_the_type_it_has(tiny_model, tmp_path, dtype, most):
    settings = HalfPrecision(name="small", model="base", method="half", dtype=dtype)
    out = quantize(settings, tiny_model, tmp_path / "out")
    reloaded = AutoModelForCausalLM.from_pretrained(out, dtype="auto")
    assert {parameter.dtype for parameter in reloaded.parameters()} == {getattr(torch, dtype)}
    original = logits(AutoModelForCausalLM.from_pretrained(tiny_model))
    assert relative_error(logits(reloaded.float()), original) < most
    config = json.loads((out / "config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == dtype
    counts = artifacts.read_manifest(out)["counts"]
    assert counts["weight_bytes_after"] < 0.51 * counts["weight_bytes_before"]


def test_numbers_past_float16_are_refused_by_name(tiny_model, tmp_path):
    source = shutil.copytree(tiny_model, tmp_path / "large")
    weights = load_file(source / "model.safetensors")
    weights["model.norm.weight"][3] = 1e6
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    settings = HalfPrecision(name="small", model="base", method="half", dtype="float16")
    with pytest.raises(ModelError, match=r"model\.norm\.weight: .* too large for float16"):
        quantize(settings, source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("settings", [*BNB[:2], gguf("q8_0")], ids=lambda s: s.name)
def test_broken_weights_are_refused_by_every_method(settings, tiny_model, tmp_path):
    source = shutil.copytree(tiny_model, tmp_path / "broken")
    weights = load_file(source / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"up_proj.* not finite"):
        quantize(settings, source, tmp_path / "out")


@pytest.mark.parametrize(("type_", "most"), [("bf16", 0.005), ("q8_0", 0.02), ("q4_0", 0.15)])
def test_gguf_is_scored_like_any_model(tiny_model, tmp_path, type_, most):
    out = quantize(gguf(type_), tiny_model, tmp_path / "out")
    original = logits(load_model(tiny_model, precision="float32"))
    assert relative_error(logits(load_model(out, precision="float32")), original) < most
    counts = artifacts.read_manifest(out)["counts"]
    assert counts["read_back"]["relative_logit_error"] < most
    assert counts["read_back"]["texts_with_equal_tokens"] > 300
    assert counts["method"] == f"GGUF, {type_.upper()}"
    assert set(counts["mean_relative_weight_error"]) >= {"q_proj", "down_proj", "embed_tokens"}


def test_gguf_has_the_same_bytes_each_time(tiny_model, tmp_path):
    first, second = (quantize(gguf("q4_0"), tiny_model, tmp_path / name) for name in "ab")
    assert artifacts.content_digest(first) == artifacts.content_digest(second)


def test_a_gguf_model_is_not_quantized_again(tiny_model, tmp_path):
    out = quantize(gguf("bf16"), tiny_model, tmp_path / "out")
    with pytest.raises(ModelError, match=r"small-bf16\.gguf: is quantized already \(GGUF\)"):
        quantize(BNB[0], out, tmp_path / "again")


def test_k_quants_need_the_tool_of_llama_cpp(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependencyError, match=r"q4_k_m needs the program llama-quantize"):
        quantize(gguf("q4_k_m"), tiny_model, tmp_path / "out")


def test_perplexity_on_held_out_text_is_measured_before_and_after(tiny_model, tmp_path, tokenizer):
    tokens = write_tokens(tmp_path / "tokens", len(tokenizer), num_held_out=5)
    out = quantize(BNB[1], tiny_model, tmp_path / "out", held_out=tokens)
    measured = artifacts.read_manifest(out)["counts"]["held_out"]
    assert measured["rows"] == 5
    assert measured["tokens"] == 5 * (29 + 24)  # the first of each document is given
    low, high = measured["added_nats_per_token_low"], measured["added_nats_per_token_high"]
    assert low < measured["added_nats_per_token"] < high
    assert measured["perplexity_before"] == pytest.approx(600, rel=0.1)  # knows nothing
    assert "Perplexity on held-out text" in (out / "README.md").read_text()


def test_a_corpus_that_holds_nothing_out_is_refused(tiny_model, tokens, tmp_path):
    with pytest.raises(InputError, match="has no held-out rows to measure perplexity on"):
        quantize(BNB[1], tiny_model, tmp_path / "out", held_out=tokens)
