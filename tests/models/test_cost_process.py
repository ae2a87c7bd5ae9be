"""What is measured of a model: numbers that can be checked, and ones that can only be there."""

from __future__ import annotations

import io
import json

import pytest
import torch
from safetensors.torch import load_file

from biomistral.errors import InputError
from biomistral.models import cost_process
from biomistral.models.cost_process import measure
from biomistral.models.costs import Cost, CostSettings

SMALL = CostSettings(prompt_tokens=40, new_tokens=4, batch=2, repeats=1)


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch):
    monkeypatch.setattr(cost_process, "pick_device", lambda: torch.device("cpu"))


@pytest.fixture(scope="module")
def weights(tiny_model):
    return load_file(tiny_model / "model.safetensors")


def test_every_field_of_a_cost_is_measured(tiny_model, weights):
    cost = Cost("small", **measure(tiny_model, SMALL))
    number = sum(tensor.numel() for tensor in weights.values())
    assert cost.num_parameters == number
    assert 2 * number <= cost.weight_bytes <= 2 * number + 1000  # bfloat16, and the frequencies
    assert cost.file_bytes > 4 * number
    assert (cost.device, cost.prompt_tokens, cost.batch) == ("CPU", 40, 2)
    assert cost.peak_memory_bytes >= 0
    for name in ("reading", "writing", "batched"):
        assert getattr(cost, f"{name}_tokens_per_second") > 0
    assert cost.load_seconds > 0


def test_a_prompt_is_cut_to_the_context(tiny_model):
    settings = CostSettings(prompt_tokens=10_000, new_tokens=2, batch=1, repeats=1)
    assert measure(tiny_model, settings)["prompt_tokens"] == 511


def test_a_context_too_short_for_anything_is_refused(make_model):
    small = make_model(0, max_position_embeddings=19)
    with pytest.raises(
        InputError, match="context of 19 tokens holds no prompt of 16 and an answer"
    ):
        measure(small, SMALL)


def test_the_process_reads_a_task_and_writes_a_line(tiny_model, monkeypatch, capsys):
    task = {"folder": str(tiny_model), "revision": None, "prompt_tokens": 20, "new_tokens": 2,
            "batch": 1, "repeats": 1, "precision": "float32", "threads": 1}  # fmt: skip
    for change, key in (({}, "writing_tokens_per_second"), ({"folder": "nowhere"}, "error")):
        monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({**task, **change})))
        cost_process.main()
        assert key in json.loads(capsys.readouterr().out.splitlines()[-1])
