from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from biomistral import artifacts
from biomistral.errors import InputError, ModelError
from biomistral.models.awq import load_awq_model
from biomistral.models.rows import Row, write_rows
from biomistral.quantization import quantize, step
from biomistral.recipe.settings import AwqQuantization, BitsandbytesQuantization

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


def write_tokens(folder: Path, vocabulary_size: int, num_rows: int = 8) -> Path:
    folder.mkdir()
    generator = np.random.default_rng(0)

    def row() -> Row:
        pieces = tuple(generator.integers(3, 500, size=size) for size in (30, 25))
        return Row(pieces, (0, 1))

    write_rows(
        folder,
        [row() for _ in range(num_rows)],
        [],
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
    pytest.importorskip("bitsandbytes")
    on_cpu = step._write_bitsandbytes

    def on_gpu(settings, original, draft, progress):
        on_cpu(settings, original, draft, progress)
        draft.device = "cuda"

    settings = BitsandbytesQuantization(name="small", model="m", method="bitsandbytes", bits=8)
    assert (
        artifacts.read_manifest(quantize(settings, tiny_model, tmp_path / "cpu"))["deterministic"]
        is True
    )
    monkeypatch.setattr(step, "_write_bitsandbytes", on_gpu)
    out = quantize(settings, tiny_model, tmp_path / "gpu")
    assert "GPU" in artifacts.read_manifest(out)["deterministic"]


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
