"""Measuring a model in a process of its own, and what that process says when it cannot."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from biomistral.errors import InputError, ModelError
from biomistral.models import costs
from biomistral.models.costs import CostSettings, measure_apart

SMALL = CostSettings(prompt_tokens=40, new_tokens=4, batch=2, repeats=1, threads=1)


def test_an_error_of_the_process_is_raised_here_with_the_model_s_name(tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"small: .*model.safetensors"):
        measure_apart("small", tmp_path / "model", SMALL)


@pytest.mark.parametrize(
    ("status", "message"),
    [(-9, "was killed, most likely for want of memory"), (1, r"ended with status 1 \(Boom: x\)")],
)
def test_a_process_that_breaks_down_is_said(monkeypatch, tiny_model, status, message):
    done = subprocess.CompletedProcess([], status, stdout="", stderr="Traceback\nBoom: x\n")
    monkeypatch.setattr(costs.subprocess, "run", lambda *_, **__: done)
    with pytest.raises(ModelError, match=f"small: the process that measured it {message}"):
        measure_apart("small", tiny_model, SMALL)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt_tokens": 0}, "prompt_tokens is 0; wanted is 1 or more"),
        ({"batch": -1}, "batch is -1"),
        ({"threads": 0}, "threads is 0"),
        ({"precision": "int3"}, "precision int3 is not known"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        CostSettings(**settings)
