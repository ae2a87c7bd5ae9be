"""Estimates: a sample from all over the model, and nothing left behind."""

from __future__ import annotations

import tempfile

import pytest

from biomistral.merging import estimate
from biomistral.merging.config import parse_config
from biomistral.merging.plan import find_folders, plan_merge


@pytest.fixture
def plan(make_model):
    config = parse_config(
        f"""
merge_method: linear
models:
  - {{model: {make_model(0)}, parameters: {{weight: 1}}}}
  - {{model: {make_model(1)}, parameters: {{weight: 1}}}}
"""
    )
    return plan_merge(config, find_folders(config))


def test_a_small_model_is_merged_as_a_whole(plan):
    assert estimate.sample(plan) == sorted(plan.jobs, key=lambda job: job.output.num_elements)
    seconds, done = estimate.estimate_seconds(plan)
    assert seconds > 0
    assert done == 1


def test_of_a_large_model_tensors_of_all_sizes_are_taken(plan, monkeypatch):
    monkeypatch.setattr(estimate, "_ENOUGH_ELEMENTS", 20_000)
    chosen = estimate.sample(plan)
    assert 0 < len(chosen) < len(plan.jobs)
    assert len({job.output.num_elements for job in chosen}) > 1
    _, done = estimate.estimate_seconds(plan)
    assert 0 < done < 1


def test_an_estimate_leaves_no_file(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    estimate.estimate_seconds(plan)
    assert list(tmp_path.iterdir()) == []
