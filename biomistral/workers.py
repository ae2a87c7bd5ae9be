"""One function over many items: in this process, in several, or on a cluster.

A cluster is whatever ``running_on`` was given (``pipeline.cluster`` has one); without it, workers are
processes of this machine. They are started afresh (spawn), so that nothing of this process is copied
into them; they leave Ctrl-C to it, and end when it ends, however it ended. Knows nothing about what
the function does.
"""

from __future__ import annotations

import contextlib
import contextvars
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol, TypeVar

from biomistral.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


class Runner(Protocol):
    """Where items are worked on, if not on this machine."""

    def run_all(
        self, function: Callable[[Any], Any], items: Sequence[Any], *, gpu: bool = False
    ) -> Iterator[tuple[int, Any]]:
        """Yield the index of each item with its result, as they are done."""

    def num_tasks(self, *, gpu: bool = False) -> int:
        """Return how many items it can work on at a time."""


_runner: contextvars.ContextVar[Runner | None] = contextvars.ContextVar("runner", default=None)


@contextlib.contextmanager
def running_on(runner: Runner) -> Iterator[None]:
    """Have ``run_all`` give its items to ``runner`` in this block."""
    token = _runner.set(runner)
    try:
        yield
    finally:
        _runner.reset(token)


def num_elsewhere(*, gpu: bool = False) -> int:
    """Return how many items can be worked on at a time on a cluster; 0 if there is none.

    With ``gpu``, items that take a GPU each if it has any.
    """
    runner = _runner.get()
    return runner.num_tasks(gpu=gpu) if runner is not None else 0


def num_processors() -> int:
    """Processors that this process may use; where the system does not tell (macOS), all there are."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def run_all(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    num_workers: int,
    *,
    gpu: bool = False,
) -> Iterator[tuple[int, Result]]:
    """Yield the index of each item with its result, as they are done.

    ``function`` must be importable and depend on nothing but its item, and files that all workers
    reach. How many there are on a cluster is the cluster's business; with ``gpu`` each takes a GPU
    there, if it has any. An error of one item ends everything; so does Ctrl-C, once the items under
    way are done.

    Raises ``InputError`` if a worker dies, which is mostly for want of memory.
    """
    num_workers = min(num_workers, len(items))
    runner = _runner.get()
    if runner is not None and (num_workers > 1 or gpu):
        yield from runner.run_all(function, items, gpu=gpu)
        return
    if num_workers <= 1:
        yield from ((index, function(item)) for index, item in enumerate(items))
        return
    pool = ProcessPoolExecutor(
        num_workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker
    )
    try:
        tasks = {pool.submit(function, item): index for index, item in enumerate(items)}
        for task in as_completed(tasks):
            yield tasks.pop(task), task.result()
    except BrokenProcessPool as error:
        raise InputError(
            "a worker process was killed, most likely because memory ran out; what is finished is "
            "kept: run the same command again with fewer workers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would otherwise wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
