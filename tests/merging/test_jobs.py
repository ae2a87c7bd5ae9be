"""Jobs: plain values that can be compared."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from biomistral.merging.jobs import Input, Job
from biomistral.models.safetensors_files import StoredTensor, TensorSpec


def test_jobs_are_plain_values():
    stored = StoredTensor("t", (2,), "float32", Path("a.safetensors"), 8)
    jobs = [
        Job(TensorSpec("t", (2,), "float32"), "linear", None, (Input("a", stored, {"weight": 1}),))
        for _ in range(2)
    ]
    assert jobs[0] == jobs[1]
    assert jobs[0].inputs[0].update is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        jobs[0].method = "slerp"
