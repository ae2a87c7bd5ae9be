"""Many processes give what one gives; errors and deaths are told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from biomistral import workers
from biomistral.errors import InputError
from biomistral.workers import num_processors, run_all


def test_one_process_and_several_give_the_same() -> None:
    items = list(range(5))
    alone = dict(run_all(abs, items, 1))
    assert alone == dict(run_all(abs, items, 2)) == {i: i for i in items}


def test_no_more_processes_than_items_are_started() -> None:
    assert list(run_all(os.path.basename, ["a/b"], 8)) == [(0, "b")]
    assert list(run_all(abs, [], 8)) == []
    assert num_processors() >= 1


def test_where_the_system_tells_no_processors_all_are_counted(monkeypatch) -> None:
    monkeypatch.delattr("os.sched_getaffinity", raising=False)  # as on macOS
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert num_processors() == 6


def test_an_error_of_an_item_ends_everything() -> None:
    with pytest.raises(TypeError, match="bad operand"):
        list(run_all(abs, [1, "x", 2], 2))  # type: ignore[arg-type, list-item]


def test_ctrl_c_is_left_to_this_process() -> None:
    handlers = dict(run_all(signal.getsignal, [signal.SIGINT] * 2, 2))
    assert handlers == {0: signal.SIG_IGN, 1: signal.SIG_IGN}


def test_a_worker_that_dies_is_told() -> None:
    with pytest.raises(InputError, match=r"a worker process was killed.*fewer workers"):
        list(run_all(os._exit, [3, 3], 2))


def test_workers_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, pathlib, time\n"
        "from biomistral.workers import run_all\n"
        "def work(folder):\n"
        "    (pathlib.Path(folder) / f'pid-{os.getpid()}').touch()\n"
        "    time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        f"    list(run_all(work, [{str(tmp_path)!r}] * 2, 2))\n"
    )
    root = Path(__file__).resolve().parents[1]
    parent = subprocess.Popen([sys.executable, script], env={**os.environ, "PYTHONPATH": str(root)})
    pids: list[int] = []
    while len(pids) < 2:
        assert parent.poll() is None, "ended by itself"
        time.sleep(0.05)
        pids = [int(path.name.removeprefix("pid-")) for path in tmp_path.glob("pid-*")]
    parent.kill()
    parent.wait()
    while any(is_alive(pid) for pid in pids):  # the test's own limit of time ends this
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    """Not gone, and not dead and waiting for somebody to notice."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_a_cluster_takes_what_would_go_to_several_processes() -> None:
    given = []

    class Cluster:
        def num_tasks(self, *, gpu=False):
            return 8 if gpu else 2

        def run_all(self, function, items, *, gpu=False):
            given.extend((item, gpu) for item in items)
            yield from ((index, function(item)) for index, item in enumerate(items))

    with workers.running_on(Cluster()):
        assert sorted(workers.run_all(abs, [-1, -2], 2)) == [(0, 1), (1, 2)]
        assert list(workers.run_all(abs, [-3], 2)) == [(0, 3)]  # one alone is not worth the way
        assert list(workers.run_all(abs, [-4], 1, gpu=True)) == [(0, 4)]  # here is no GPU
        assert (workers.num_elsewhere(), workers.num_elsewhere(gpu=True)) == (2, 8)
    assert given == [(-1, False), (-2, False), (-4, True)]
    assert workers.num_elsewhere(gpu=True) == 0
