"""Merges come out as when they were compared with mergekit's, bit for bit.

The comparison itself, which needs mergekit, is ``benchmarks/parity_mergekit.py``; its table is
``benchmarks/results/merge_parity.md``.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from biomistral.merging import kernels

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def cases():
    """The module with the models and the merges."""
    spec = importlib.util.spec_from_file_location("merge_cases", BENCHMARKS / "merge_cases.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def models(cases, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parity")
    cases.make_models(folder)
    return folder


@pytest.mark.parametrize("engine", ["compiled", "torch"])
def test_results_are_those_that_were_compared_with_mergekit(
    cases, models, tmp_path, monkeypatch, engine
):
    if engine == "torch":
        monkeypatch.setattr(kernels, "library", lambda: None)
    elif kernels.library() is None:
        pytest.skip("no compiler here")
    kept = cases.kept_digests()
    assert list(kept) == [case.title for case in cases.CASES]
    changed = [
        case.title
        for index, case in enumerate(cases.CASES)
        if cases.digest(cases.merge_ours(case, models, tmp_path / str(index))) != kept[case.title]
    ]
    assert not changed


def test_all_methods_were_compared(cases):
    from biomistral.merging.methods import METHODS

    assert {case.method for case in cases.CASES} == METHODS.keys()
