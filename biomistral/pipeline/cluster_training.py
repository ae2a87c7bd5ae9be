"""One model trained on many machines: Ray Train starts the processes that torchrun starts on one.

What each process does is what it does under torchrun: it finds ``RANK`` and ``WORLD_SIZE`` and joins
the others by ``torch.distributed``. If a machine dies, the others are stopped, and all that are left
go on from the last checkpoint. Knows nothing about how a model is trained.
"""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biomistral import __version__
from biomistral.errors import BiomistralError, InputError, require
from biomistral.pipeline.cluster import MAX_RETRIES, Attached, Cluster, Mark, call, packed
from biomistral.pipeline.cluster_orders import Order, make_step
from biomistral.pipeline.steps import Step

# Ray Train's own notes go here, below the run's folder, and are removed.
_NOTES = ".ray-train"
_PAUSE_SECONDS = 30.0  # Ray takes 20 until it holds a silent machine for dead


@dataclass(frozen=True)
class Group:
    """Processes that train together."""

    processes: int
    rows_per_step: int  # of an optimizer step: they are shared out evenly
    cpus: int  # of each process
    gpu: bool  # for each process


def train_together(cluster: Cluster, step: Step, order: Order, processes: int) -> Any:
    """Have a model trained in ``processes``; return the reference to the seconds it took.

    Who waits for them takes no processor, on the machine of this process: if that dies, so does the
    run. Raises ``MissingDependencyError`` without Ray Train.
    """
    import ray

    require("pandas", extra="cluster", purpose="training on many machines, by Ray Train,")
    settings = step.origin.settings
    rows = int(settings["rows_per_step"]) * int(settings["accumulation_steps"])
    group = Group(processes, rows, cluster.cpus_per_task, cluster.num_gpus() > 0)
    here = ray.get_runtime_context().get_node_id()
    return cluster.submit(_train, order, group, cpus=0, node=here)


def _train(order: Order, group: Group) -> float:
    """Train until it is done, with fewer processes where machines are lost for good."""
    started = time.perf_counter()
    cluster = Attached(group.cpus, order.mark)
    losses = 0
    for attempt in itertools.count():
        room = cluster.num_tasks(gpu=group.gpu)
        size = _largest(group, room)
        try:
            _try(order, group, size, attempt)
            break
        except _NoRoomError:
            continue  # other steps work there: they end, or a machine is found to be gone
        except _LostError as error:
            losses += 1
            if losses > MAX_RETRIES:
                raise InputError(
                    f"{order.key}: training in {size} processes was lost {losses} times "
                    f"({error}); its last checkpoint is kept, run again when the machines are well"
                ) from None
            _wait_for_news(cluster, group, room)
    return time.perf_counter() - started


class _NoRoomError(Exception):
    """The processes did not find their places within a minute."""


class _LostError(Exception):
    """Processes that train together died, or lost each other."""


def _wait_for_news(cluster: Cluster, group: Group, room: int) -> None:
    """Wait until a machine is known to be dead; a while only, for it may be well again."""
    give_up = time.monotonic() + _PAUSE_SECONDS
    while cluster.num_tasks(gpu=group.gpu) == room and time.monotonic() < give_up:
        time.sleep(1)


def _largest(group: Group, room: int) -> int:
    """How many processes fit on what is left of the cluster and can share the rows of a step."""
    if room >= group.processes:
        return group.processes
    most = room
    return max(n for n in range(1, most + 1) if group.rows_per_step % n == 0)


def _try(order: Order, group: Group, size: int, attempt: int) -> None:
    """Train once. Raises ``_LostError`` where another attempt is worth it."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    failures: Any = FailureConfig  # its type is of the version before
    notes = Path(order.root, _NOTES)
    name = f"{order.key.replace('/', '-')}-{order.fingerprint[:12]}-{attempt}"
    trainer = TorchTrainer(
        _member,
        train_loop_config={
            "version": __version__,
            "cpus": group.cpus,
            "mark": order.mark,
            "work": packed(make_step, order, group.cpus),
        },
        torch_config=TorchConfig(backend="nccl" if group.gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=size,
            use_gpu=group.gpu,
            resources_per_worker={"CPU": group.cpus, **({"GPU": 1} if group.gpu else {})},
            placement_strategy="PACK",
        ),
        run_config=RunConfig(
            name=name,
            storage_path=str(notes),
            # Neither is tried again by Ray, which would wait for lost machines without end.
            failure_config=failures(max_failures=0, controller_failure_limit=0),
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        raise _reason(error) from None
    finally:
        shutil.rmtree(notes / name, ignore_errors=True)
        if notes.is_dir() and not any(notes.iterdir()):
            notes.rmdir()


def _member(job: Mapping[str, Any]) -> None:
    """Be one of the processes."""
    mark: Mark | None = job["mark"]
    call(job["version"], job["cpus"], mark, job["work"])


def _reason(error: Any) -> Exception:
    """Of what went wrong in some processes, what began it: our own errors are told to the user.

    A lost machine looks like a lost connection to the others; what is neither is our own bug.
    """
    failures: Mapping[int, BaseException] = getattr(error, "worker_failures", {})
    if controller := getattr(error, "controller_failure", None):
        if type(controller).__name__ == "WorkerGroupStartupTimeoutError":
            return _NoRoomError()
        failures = {-1: controller}
    for failure in failures.values():
        if isinstance(failure, BiomistralError):
            return failure
    for failure in failures.values():
        if isinstance(failure, RuntimeError | OSError) or _is_of_ray(failure):
            return _LostError(" ".join(str(failure).split())[:300])
    found: Exception = error
    return found


def _is_of_ray(failure: BaseException) -> bool:
    return type(failure).__module__.split(".")[0] == "ray"
