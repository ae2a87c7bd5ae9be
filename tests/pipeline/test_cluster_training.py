"""Two processes on two machines learn what one does; if one machine dies, the other goes on."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from biomistral.artifacts import read_manifest
from biomistral.errors import InputError, ModelError
from biomistral.pipeline import cluster_training, plan, run_steps, select
from biomistral.pipeline.cluster import Cluster
from biomistral.pipeline.cluster_steps import run_on
from biomistral.pipeline.cluster_training import Group, _largest, _LostError, _reason

TRAINING = (
    "merge=[]",
    "quantize=[]",
    "evaluate=null",
    "pretrain.base.epochs=0.7",  # of 300 steps
    "pretrain.base.save_every_steps=10",
    "pretrain.base.keep_checkpoints=1",
)


def losses(root: Path) -> list[float]:
    lines = (root / "model/base/training_log.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines if "loss" in json.loads(line)]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_machines_learn_what_one_does_though_one_of_them_dies(
    small, machines, tmp_path
) -> None:
    pytest.importorskip("pandas", reason="Ray Train needs it: pip install 'biomistral[cluster]'")
    recipe = small(*TRAINING)
    here, there = tmp_path / "here", tmp_path / "there"
    list(run_steps(select(plan(recipe, here), ["base"]), here))
    steps = select(plan(recipe, there), ["base"])
    list(run_steps(steps[:-1], there))  # what it needs
    assert steps[-1].key == "model/base"

    def kill_in_the_middle() -> None:
        while not list(there.glob("model/.base.*/.work/checkpoint-*/trainer_state.json")):
            time.sleep(0.02)
        machines.kill_one()

    cluster = Cluster(machines.address)
    killer = threading.Thread(target=kill_in_the_middle, daemon=True)
    killer.start()
    try:
        list(run_on(cluster, recipe, steps, there, processes=2))
    finally:
        cluster.close()
    killer.join()
    assert losses(there) == pytest.approx(losses(here), abs=1e-5)
    assert len(losses(there)) > 40
    manifest = read_manifest(there / "model/base")
    assert manifest is not None
    assert manifest["resumed"], "it began again"
    assert manifest["counts"]["processes"] == 1, "the last steps were made by who was left"
    assert sorted(path.name for path in there.iterdir() if path.name.startswith(".")) == [
        ".cluster"
    ]


@pytest.mark.parametrize(("left", "size"), [(32, 32), (31, 16), (15, 8), (7, 4), (1, 1)])
def test_as_many_are_left_as_can_share_the_rows_of_a_step(left: int, size: int) -> None:
    assert _largest(Group(processes=32, rows_per_step=64, cpus=8, gpu=True), left) == size


class FailedError(Exception):
    def __init__(self, **failures: BaseException) -> None:
        self.worker_failures = failures


def test_a_lost_connection_is_worth_another_attempt_and_a_wrong_recipe_is_not() -> None:
    lost = RuntimeError("Connection closed by peer [127.0.0.3]")
    assert isinstance(_reason(FailedError(a=lost)), _LostError)
    wrong = ModelError("loss is not a number")
    assert _reason(FailedError(a=lost, b=wrong)) is wrong, "the others lost who had stopped"
    bug = FailedError(a=KeyError("x"))
    assert _reason(bug) is bug


def test_who_waits_for_room_waits_as_long_as_others_work(monkeypatch, tmp_path) -> None:
    class WorkerGroupStartupTimeoutError(Exception):
        """Named as Ray's."""

    full = FailedError()
    full.controller_failure = WorkerGroupStartupTimeoutError()
    sizes = []

    def wait(_order: object, _group: Group, size: int, attempt: int) -> None:
        sizes.append(size)
        if attempt < 20:
            raise _reason(full)

    monkeypatch.setattr(cluster_training, "_try", wait)
    monkeypatch.setattr(Cluster, "num_tasks", lambda *_, **__: 4 if len(sizes) < 10 else 3)
    order = cluster_training.Order("{}", str(tmp_path), str(tmp_path), "model/m", "0" * 64)
    cluster_training._train(order, Group(4, 4, 1, gpu=False))
    assert sizes == [4] * 10 + [2] * 11, "a machine was found to be gone on the way"


def test_a_training_that_is_lost_again_and_again_is_given_up(monkeypatch, tmp_path) -> None:
    def lose(*_: object) -> None:
        raise _LostError("Connection closed by peer")

    monkeypatch.setattr(cluster_training, "_try", lose)
    monkeypatch.setattr(Cluster, "num_tasks", lambda *_, **__: 4)
    monkeypatch.setattr(cluster_training, "_PAUSE_SECONDS", 0)
    order = cluster_training.Order("{}", str(tmp_path), str(tmp_path), "model/m", "0" * 64)
    with pytest.raises(InputError, match=r"model/m: training in 4 processes was lost 6 times"):
        cluster_training._train(order, Group(4, 4, 1, gpu=False))
