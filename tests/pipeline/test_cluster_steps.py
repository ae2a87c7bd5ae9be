"""A run on true Ray gives the bytes of a run here, and survives the death of a machine."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from biomistral.artifacts import content_digest, read_manifest
from biomistral.errors import InputError
from biomistral.pipeline import cluster_steps, plan, run_steps
from biomistral.pipeline.cluster import Cluster
from biomistral.pipeline.cluster_steps import run_on, wants_gpu

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
