"""A run on true Ray gives the bytes of a run here, and survives the death of a machine."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

from biomistral.artifacts import content_digest, read_manifest
from biomistral.errors import InputError
from biomistral.pipeline import cluster_steps, making, plan, run_steps
from biomistral.pipeline.cluster import Cluster, Mark
from biomistral.pipeline.cluster_steps import make_step, run_on, wants_gpu
from biomistral.recipe import Recipe

CHANGES = (
    "quantize=[]",
    "evaluate.models=[base, slerp]",
    "evaluate.ensembles=[]",
    "evaluate.scoring=letter",
    "evaluate.languages=[en]",
    "evaluate.find_overlap=false",
)


def artefacts(root: Path) -> dict[str, str]:
    return {
        path.parent.relative_to(root).as_posix(): content_digest(path.parent)
        for path in sorted(root.glob("*/*/manifest.json"))
    }


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_run_survives_the_death_of_a_machine_and_gives_the_same_bytes(
    small, machines, tmp_path
) -> None:
    recipe = small(*CHANGES)
    here = tmp_path / "here"
    list(run_steps(plan(recipe, here), here))

    there = tmp_path / "there"
    cluster = Cluster(machines.address)
    try:
        assert cluster.num_tasks() == 2
        for number, outcome in enumerate(run_on(cluster, recipe, plan(recipe, there), there)):
            assert outcome.verdict.state == "new"
            if number == 3:
                machines.kill_one()
        again = list(run_on(cluster, recipe, plan(recipe, there), there))
    finally:
        cluster.close()
    assert {outcome.verdict.state for outcome in again} == {"done"}
    assert artefacts(there) == artefacts(here)
    manifest = read_manifest(there / "predictions/base")
    assert manifest is not None
    assert manifest["counts"]["predictions"] > 0
    assert manifest["device"] == "cpu"


class NoCluster(Cluster):
    """One that says how large it is and does nothing."""

    def __init__(self, **resources: float) -> None:
        self.cpus_per_task = 8
        self.resources = resources

    def _resources(self) -> dict[str, float]:
        return self.resources

    def describe(self) -> str:
        return "1 machines"


@pytest.fixture
def order(small, tmp_path):
    """To make the tokens of a corpus; and the recipe."""
    recipe: Recipe = small(*CHANGES)
    steps = plan(recipe, tmp_path)
    make = cluster_steps._orders(recipe, steps, tmp_path, Mark("m", "text"))
    return make(next(step for step in steps if step.key == "tokens/general"))


def test_a_machine_with_other_files_is_refused(order) -> None:
    other = dataclasses.replace(order, corpora={**order.corpora, "general": "0" * 64})
    with pytest.raises(InputError, match="sees other files than the one that planned"):
        make_step(other, 1)


def test_no_machine_looks_through_a_corpus_that_was_fingerprinted(order, monkeypatch) -> None:
    assert set(order.corpora) == {"general", "articles"}
    assert all(len(mark) == 64 for mark in order.corpora.values())
    made = []
    monkeypatch.setattr(making, "corpus_files", lambda _: lambda: pytest.fail("looked"))
    monkeypatch.setattr(cluster_steps, "make", lambda step, *_: made.append(step.key) or 1.0)
    assert make_step(order, 1) == 1.0
    assert made == ["tokens/general"]


def test_more_processes_than_fit_are_refused(small, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(cluster_steps, "_JOINING_SECONDS", 0)
    recipe = small(*CHANGES)
    steps = plan(recipe, tmp_path)
    with pytest.raises(InputError, match=r"--nproc 9: the cluster has 8 GPUs.*give at most 8"):
        list(run_on(NoCluster(CPU=64, GPU=8), recipe, steps, tmp_path, processes=9))
    with pytest.raises(InputError, match=r"--nproc 3: the cluster has room for 2.*per-task 8"):
        list(run_on(NoCluster(CPU=16), recipe, steps, tmp_path, processes=3))


def test_machines_that_are_still_joining_are_waited_for(monkeypatch) -> None:
    cluster = NoCluster(CPU=8)
    monkeypatch.setattr(time, "sleep", lambda _: cluster.resources.update(CPU=16))
    cluster_steps._refuse_too_many(cluster, 2)


def test_gpus_go_to_who_computes_and_not_to_who_waits(small, tmp_path) -> None:
    recipe = small("evaluate.cost=true")
    steps = {step.key: step for step in plan(recipe, tmp_path)}

    def on_gpu(num_gpus: int) -> set[str]:
        return {key for key, step in steps.items() if wants_gpu(step, recipe, num_gpus)}

    made = {"model/base", "model/medical", "model/bnb", "model/awq", "scores/cost"}
    assert on_gpu(8) == made, "merges, corpora, tables and who gathers predictions need none"
    predicted = {f"predictions/{name}" for name in recipe.evaluate.models}
    assert on_gpu(1) == made | predicted, "with one GPU, units are not handed on"
    by_vllm = small("evaluate.cost=true", "evaluate.engine=vllm")
    steps = {step.key: step for step in plan(by_vllm, tmp_path)}
    assert {key for key, step in steps.items() if wants_gpu(step, by_vllm, 8)} == made | predicted
