"""A connection to a Ray cluster: functions as its tasks, on machines that see one shared folder.

A task is told what to do in a few hundred bytes, reads and writes the folder, and what it makes is
whole or absent; so a task whose machine dies is simply given to another one, and what the dead one
had finished is found there. Before a machine does anything it must have the version of the package
that the run was started with, and see the run's folder.

Ray is an extra and is imported when a cluster is asked for, not before. Why Ray: docs/cluster.md.
Knows nothing about recipes: what a run gives to it is in ``cluster_steps`` and ``cluster_training``.
"""

from __future__ import annotations

import functools
import itertools
import os
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biomistral import __version__
from biomistral.errors import BiomistralError, InputError, require

# How often a task is given to another machine when its own dies under it.
MAX_RETRIES = 5
_THIS_MACHINE = "local"
# Tasks that wait on the cluster for each that fits: enough that no machine waits for this one.
_WAITING_TASKS = 4
_MARK = ".cluster"
_PATIENCE_SECONDS = 3  # until a file that another machine has written must be seen


@dataclass(frozen=True)
class Mark:
    """A file of the run's folder, and what is in it: who reads that sees the folder."""

    path: str
    text: str


class Cluster:
    """A connection to Ray. ``close`` ends it, and Ray too if it was started here."""

    mark: Mark | None = None  # that machines must see

    def __init__(self, address: str, *, cpus_per_task: int = 1) -> None:
        """Connect to ``address`` (``auto``: of this machine), or start Ray here with ``local``.

        Raises ``MissingDependencyError`` without Ray, ``InputError`` if no cluster answers.
        """
        require("ray", extra="cluster", purpose="a run on a cluster")
        import ray

        self.cpus_per_task = cpus_per_task
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # no GPU given: none seen
        try:
            _knock(address)
            if address == _THIS_MACHINE:
                ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
            else:
                ray.init(address, log_to_driver=False, configure_logging=False)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise InputError(
                f"--cluster {address}: no Ray cluster answers ({_one_line(error, 200)}); start one with "
                "`ray start --head`, or give --cluster local to start it on this machine"
            ) from None

    def close(self) -> None:
        """Leave the cluster."""
        import ray

        ray.shutdown()

    def share(self, folder: Path) -> None:
        """Have every task, before it starts, look whether its machine sees ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder.resolve() / _MARK
        if not path.is_file():
            draft = path.with_name(f"{_MARK}.{uuid.uuid4().hex}")
            draft.write_text(draft.suffix)
            try:
                os.link(draft, path)  # of two runs that begin together, the first one's stays
            except FileExistsError:
                pass
            except OSError:  # a file system without links
                draft.replace(path)
            draft.unlink(missing_ok=True)
        self.mark = Mark(str(path), path.read_text())

    def num_gpus(self) -> int:
        """GPUs of all machines."""
        return int(self._resources().get("GPU", 0))

    def describe(self) -> str:
        """Say how large it is."""
        import ray

        list_nodes: Any = ray.nodes
        nodes = sum(node["Alive"] for node in list_nodes())
        gpus = f", {self.num_gpus()} GPUs" if self.num_gpus() else ""
        return f"{nodes} machines, {self._resources().get('CPU', 0):g} CPUs{gpus}"

    def _resources(self) -> dict[str, float]:
        import ray

        count: Any = ray.cluster_resources
        return dict(count())

    def num_tasks(self, *, gpu: bool = False) -> int:
        """Return how many tasks fit on the cluster at a time; with ``gpu``, that want one each."""
        if gpu and (num_gpus := self.num_gpus()):
            return num_gpus
        return max(1, int(self._resources().get("CPU", 1)) // self.cpus_per_task)

    def submit(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        gpu: bool = False,
        cpus: int | None = None,
        node: str | None = None,
    ) -> Any:
        """Give a task to the cluster; return Ray's reference to its result.

        ``cpus`` are those of a task unless given; ``node`` binds it to a machine, by its id.
        """
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        options: dict[str, Any] = {
            "num_cpus": self.cpus_per_task if cpus is None else cpus,
            "num_gpus": int(gpu and self.num_gpus() > 0),
            "max_retries": MAX_RETRIES,
        }
        if node is not None:
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=False)
        task = _remote().options(**options)
        work = packed(function, *arguments)
        return task.remote(__version__, self.cpus_per_task, self.mark, work)

    def run_all(
        self, function: Callable[[Any], Any], items: Sequence[Any], *, gpu: bool = False
    ) -> Iterator[tuple[int, Any]]:
        """Yield the index of each item with its result, as they are done: see ``workers.run_all``."""
        import ray

        todo = iter(enumerate(items))
        most = max(64, _WAITING_TASKS * self.num_tasks(gpu=gpu))
        waiting: dict[Any, int] = {}
        try:
            while True:
                for index, item in itertools.islice(todo, most - len(waiting)):
                    waiting[self.submit(function, item, gpu=gpu)] = index
                if not waiting:
                    return
                done = self.first_of(list(waiting))
                yield waiting.pop(done), self.result(done)
        finally:
            for task in waiting:  # of an error: nobody wants their results
                ray.cancel(task)

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
            raise _cause(error) from None
        except (ray.exceptions.RayError, OSError) as error:
            raise InputError(
                f"cluster: a task was lost {MAX_RETRIES + 1} times ({_one_line(error, 300)}); what is "
                "finished is kept, run again when the machines are well (a task that dies of too "
                "little memory needs --cpus-per-task to be higher)"
            ) from None


class Attached(Cluster):
    """The cluster as a task on it sees it: connected already, and nothing to close."""

    def __init__(self, cpus_per_task: int, mark: Mark | None) -> None:
        self.cpus_per_task = cpus_per_task
        self.mark = mark


@functools.cache
def _remote() -> Any:
    """``call`` as Ray knows it; made once, for each making is told to the whole cluster."""
    import ray

    return ray.remote(call)


def packed(function: Callable[..., Any], *arguments: Any) -> bytes:
    """A task as bytes: it must not be unpacked by another version before that is noticed."""
    from ray import cloudpickle

    dumps: Any = cloudpickle.dumps
    work: bytes = dumps((function, arguments))
    return work


def call(version: str, threads: int, mark: Mark | None, work: bytes) -> Any:
    """Do a task, unless this machine is not fit for the run."""
    if version != __version__:
        raise InputError(
            f"cluster: the machine {_machine()} has biomistral {__version__}, the run was "
            f"started with {version}; install one version on all machines"
        )
    if mark is not None and not _sees(mark):
        raise InputError(
            f"cluster: the machine {_machine()} does not see the run's folder, {Path(mark.path).parent}; "
            "put it, and the data, on a file system that all machines share, under one path"
        )
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:  # of a task before
        sys.modules["torch"].set_num_threads(threads)
    from ray import cloudpickle

    function, arguments = cloudpickle.loads(work)
    return function(*arguments)


def _sees(mark: Mark) -> bool:
    """Whether a file of the run's folder is here; a network file system may be late."""
    path, give_up = Path(mark.path), time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            if path.read_text() == mark.text:
                return True
        except OSError:
            if not path.parent.parent.is_dir():
                return False
        if time.monotonic() > give_up:
            return False
        time.sleep(0.5)


def _machine() -> str:
    return os.uname().nodename


def _cause(error: Any) -> BaseException:
    """What a task raised; in our words if its machine has no package that could raise anything."""
    cause = error.cause
    if isinstance(cause, BiomistralError):
        return cause
    if isinstance(cause, ImportError) and "biomistral" in str(cause):
        return InputError(
            f"cluster: a machine has no biomistral ({_one_line(cause, 200)}); install the version "
            f"{__version__} on all machines"
        )
    found: BaseException = error
    return found


def _one_line(error: object, most: int) -> str:
    return " ".join(str(error).split())[:most]


def _knock(address: str) -> None:
    """Raise ``OSError`` if nobody listens at ``host:port``; Ray would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
