"""A run on more than one machine, with Ray: steps, shards and units of evaluation as its tasks.

All machines see one folder of the run (a shared file system). A task is told what to do in a few
hundred bytes, reads and writes that folder, and what it makes is whole or absent; so a task whose
machine dies is simply given to another one, and what the dead one had finished is found there.
Results are those of a run on one machine, byte for byte where these are deterministic and as many
threads compute.

Ray is an extra and is imported when a cluster is asked for, not before. Why Ray: docs/cluster.md.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biomistral import __version__, artifacts
from biomistral.errors import BiomistralError, InputError, require
from biomistral.pipeline.running import Outcome, refuse_missing
from biomistral.pipeline.steps import Step, judge
from biomistral.progress import ignore
from biomistral.recipe import Recipe
from biomistral.workers import running_on

# How often a task is given to another machine when its own dies under it.
_MAX_RETRIES = 5
# Kinds of steps that a GPU does, if the cluster has any.
_ON_GPU = frozenset({"model", "predictions"})
_THIS_MACHINE = "local"


class Cluster:
    """A connection to Ray. ``close`` ends it, and Ray too if it was started here."""

    def __init__(self, address: str, *, cpus_per_task: int = 1) -> None:
        """Connect to ``address`` (``auto``: of this machine), or start Ray here with ``local``.

        Raises ``MissingDependencyError`` without Ray, ``InputError`` if no cluster answers.
        """
        require("ray", extra="cluster", purpose="a run on a cluster")
        import ray

        self.cpus_per_task = cpus_per_task
        try:
            _knock(address)
            if address == _THIS_MACHINE:
                ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
            else:
                ray.init(address, log_to_driver=False, configure_logging=False)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"--cluster {address}: no Ray cluster answers ({reason:.200}); start one with `ray "
                "start --head`, or give --cluster local to start it on this machine"
            ) from None

    def close(self) -> None:
        """Leave the cluster."""
        import ray

        ray.shutdown()

    def has_gpus(self) -> bool:
        """Whether any machine of the cluster has a GPU."""
        return self._resources().get("GPU", 0) > 0

    def describe(self) -> str:
        """Say how large it is."""
        import ray

        resources = self._resources()
        list_nodes: Any = ray.nodes
        nodes = sum(node["Alive"] for node in list_nodes())
        gpus = f", {resources['GPU']:g} GPUs" if self.has_gpus() else ""
        return f"{nodes} machines, {resources.get('CPU', 0):g} CPUs{gpus}"

    def _resources(self) -> dict[str, float]:
        import ray

        count: Any = ray.cluster_resources
        return dict(count())

    def num_tasks(self) -> int:
        """Return how many tasks fit on the cluster at a time."""
        resources = self._resources()
        cpus = int(resources.get("CPU", 1)) // self.cpus_per_task
        return max(1, int(resources.get("GPU", 0)) or cpus)

    def submit(self, function: Callable[..., Any], *arguments: Any, gpu: bool = False) -> Any:
        """Give a task to the cluster; return Ray's reference to its result."""
        import ray

        options: dict[str, Any] = {"num_cpus": self.cpus_per_task, "max_retries": _MAX_RETRIES}
        if gpu and self.has_gpus():
            options["num_gpus"] = 1
        call = ray.remote(**options)(_call)
        return call.remote(__version__, self.cpus_per_task, function, arguments)

    def run_all(
        self, function: Callable[[Any], Any], items: Sequence[Any]
    ) -> Iterator[tuple[int, Any]]:
        """Yield the index of each item with its result, as they are done: see ``workers.run_all``."""
        waiting = {self.submit(function, item): index for index, item in enumerate(items)}
        while waiting:
            done = self.first_of(list(waiting))
            yield waiting.pop(done), self.result(done)

    def first_of(self, references: Sequence[Any]) -> Any:
        """Wait for one of several tasks."""
        import ray

        return ray.wait(list(references), num_returns=1)[0][0]

    def result(self, reference: Any) -> Any:
        """Return what a task returned; raise what it raised as if it had run here."""
        import ray

        try:
            return ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            raise (cause if isinstance(cause, BiomistralError) else error) from None
        except (ray.exceptions.RayError, OSError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"cluster: a task was lost {_MAX_RETRIES + 1} times ({reason:.300}); what is finished "
                "is kept, run again when the machines are well (a task that dies of too little "
                "memory needs --cpus-per-task to be higher)"
            ) from None


def _knock(address: str) -> None:
    """Raise ``OSError`` if nobody listens at ``host:port``; Ray would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()


class _Attached(Cluster):
    """The cluster as a task on it sees it: connected already, and nothing to close."""

    def __init__(self, cpus_per_task: int) -> None:
        self.cpus_per_task = cpus_per_task


@dataclass(frozen=True)
class Order:
    """What a machine must know to make a step of a run."""

    recipe: str  # as JSON
    working_directory: str  # that its paths are relative to
    root: str  # folder of the run
    key: str  # of the step
    fingerprint: str  # that the step must have there, too


def run_on(
    cluster: Cluster,
    recipe: Recipe,
    steps: Sequence[Step],
    root: Path,
    *,
    tell: Callable[[str], None] = lambda _: None,
) -> Iterator[Outcome]:
    """Run the steps of a recipe on a cluster, each as soon as what it needs is there.

    Yields outcomes as they are known; ``tell`` hears of steps that start. Raises the error of the
    first step that fails when those under way are done, ``InputError`` for what is missing at once.
    """
    verdicts = {step.key: judge(step, root) for step in steps}
    refuse_missing(steps, verdicts)
    text = recipe.model_dump_json()
    root = root.resolve()
    due = [step for step in steps if verdicts[step.key].state != "done"]
    for step in steps:
        if step not in due:
            yield Outcome(step, verdicts[step.key], 0.0, artifacts.size_bytes(root / step.key))
    finished = {step.key for step in steps if step not in due}
    running: dict[Any, Step] = {}
    failed: BaseException | None = None
    while due or running:
        ready = [step for step in due if finished.issuperset(step.needs)] if not failed else []
        for step in ready:
            due.remove(step)
            order = Order(text, os.getcwd(), str(root), step.key, step.origin.fingerprint)  # noqa: PTH109
            task = cluster.submit(make_step, order, cluster.cpus_per_task, gpu=step.kind in _ON_GPU)
            running[task] = step
            tell(step.key)
        if not running:
            break
        done = cluster.first_of(list(running))
        step = running.pop(done)
        try:
            seconds = cluster.result(done)
        except (BiomistralError, KeyboardInterrupt) as error:
            failed = failed or error
            continue
        finished.add(step.key)
        size = artifacts.size_bytes(root / step.key)
        yield Outcome(step, verdicts[step.key], seconds, size)
    if failed:
        raise failed


def make_step(order: Order, cpus_per_task: int) -> float:
    """Make one artefact of a run, on whatever machine this is; return the seconds it took.

    What it cuts into shards or units goes to the cluster again. Raises ``InputError`` if this machine
    does not see the same files.
    """
    from biomistral.pipeline.plan import plan
    from biomistral.pipeline.running import make

    with running_on(_Attached(cpus_per_task)), contextlib.chdir(order.working_directory):
        root = Path(order.root)
        steps = {step.key: step for step in plan(Recipe.model_validate_json(order.recipe), root)}
        step = steps[order.key]
        if step.origin.fingerprint != order.fingerprint:
            raise InputError(
                f"{order.key}: the machine {os.uname().nodename} sees other files than the one that "
                "planned the run; give all machines the same folders, under the same paths"
            )
        return make(step, root / order.key, ignore)


def _call(
    version: str, threads: int, function: Callable[..., Any], arguments: Sequence[Any]
) -> Any:
    """Do a task; refuse if this machine has another version of the package."""
    if version != __version__:
        raise InputError(
            f"cluster: the machine {os.uname().nodename} has biomistral {__version__}, the run was "
            f"started with {version}; install one version on all machines"
        )
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:  # of a task before
        sys.modules["torch"].set_num_threads(threads)
    return function(*arguments)
