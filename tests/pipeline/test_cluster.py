"""On true Ray: two machines stood for by two raylets of this one, one of which dies in the middle."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from biomistral.artifacts import content_digest, read_manifest
from biomistral.errors import InputError, MissingDependencyError
from biomistral.pipeline import cluster as clusters
from biomistral.pipeline import plan, run_steps
from biomistral.pipeline.cluster import Cluster, _call, run_on

CHANGES = (
    "quantize=[]",
    "evaluate.models=[base, medical, slerp, dare]",
    "evaluate.scoring=letter",
)


class Machines:
    """A head without processors of its own, and two workers of one each."""

    def __init__(self, ray_cluster) -> None:
        self.ray_cluster = ray_cluster
        self.workers = [ray_cluster.add_node(num_cpus=1) for _ in range(2)]
        ray_cluster.wait_for_nodes()

    def kill_one(self) -> None:
        self.ray_cluster.remove_node(self.workers.pop(), allow_graceful=False)


@pytest.fixture
def machines(monkeypatch):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'biomistral[cluster]'")
    from ray.cluster_utils import Cluster as RayCluster

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    ray_cluster = RayCluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    yield Machines(ray_cluster)
    ray_cluster.shutdown()


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
    cluster = Cluster(machines.ray_cluster.address)
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


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_errors_of_tasks_come_back_as_they_are(machines, small, tmp_path) -> None:
    cluster = Cluster(machines.ray_cluster.address)
    try:
        with pytest.raises(InputError, match="no such luck"):
            list(cluster.run_all(_fail, ["no such luck", "no such luck, again"]))
        assert dict(cluster.run_all(abs, [-1, -2, -3])) == {0: 1, 1: 2, 2: 3}
        # Another machine with other files: a recipe whose data changed after it was planned.
        recipe = small(*CHANGES)
        order = clusters.Order(
            recipe.model_dump_json(), str(Path.cwd()), str(tmp_path), "tokens/general", "0" * 64
        )
        with pytest.raises(InputError, match="sees other files than the one that planned"):
            cluster.result(cluster.submit(clusters.make_step, order, 1))
    finally:
        cluster.close()


def _fail(text: str) -> None:
    raise InputError(text)


def test_another_version_of_the_package_is_refused() -> None:
    with pytest.raises(InputError, match=r"has biomistral .*, the run was started with 0\.0\.1"):
        _call("0.0.1", 1, abs, [-1])


def test_a_cluster_that_cannot_be_reached_is_one_error_soon() -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'biomistral[cluster]'")
    started = time.monotonic()
    with pytest.raises(InputError, match=r"--cluster 127\.0\.0\.1:1: no Ray cluster answers"):
        Cluster("127.0.0.1:1")
    assert time.monotonic() - started < 60, "somebody who mistyped an address waits for minutes"


def test_without_ray_its_pip_line_is_named(monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match=r"biomistral\[cluster\]"):
        Cluster("auto")
