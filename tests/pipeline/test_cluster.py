"""Tasks on true Ray, whose machines are raylets of this one."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from biomistral.errors import InputError, MissingDependencyError
from biomistral.pipeline import cluster as clusters
from biomistral.pipeline.cluster import Cluster, Mark, call, packed


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_tasks_give_what_they_return_and_errors_come_back_as_they_are(machines, tmp_path) -> None:
    cluster = Cluster(machines.address)
    try:
        cluster.share(tmp_path)
        assert cluster.num_tasks() == cluster.num_tasks(gpu=True) == 2
        assert cluster.describe() == "3 machines, 2 CPUs"
        assert dict(cluster.run_all(abs, [-1, -2, -3])) == {0: 1, 1: 2, 2: 3}
        numbers = list(range(70))  # more than wait at a time
        assert dict(cluster.run_all(abs, numbers)) == dict(enumerate(numbers))
        assert cluster.result(cluster.submit(os.getenv, "OMP_NUM_THREADS")) == "1"
        with pytest.raises(InputError, match="no such luck"):
            list(cluster.run_all(_fail, ["no such luck"] * 3))
        cluster.mark = Mark(str(tmp_path / clusters._MARK), "of another folder")
        with pytest.raises(InputError, match="does not see the run's folder"):
            cluster.result(cluster.submit(abs, -1))
    finally:
        cluster.close()


def _fail(text: str) -> None:
    raise InputError(text)


def test_another_version_of_the_package_is_refused_before_anything_is_unpacked() -> None:
    with pytest.raises(InputError, match=r"has biomistral .*, the run was started with 0\.0\.1"):
        call("0.0.1", 1, None, b"what no other version could read")


def test_a_machine_that_does_not_see_the_folder_of_the_run_is_refused(tmp_path) -> None:
    mark = Mark(str(tmp_path / "gone" / "runs" / ".cluster"), "x")
    with pytest.raises(
        InputError, match=r"does not see the run's folder, .*gone/runs; put it, and"
    ):
        call(clusters.__version__, 1, mark, b"")


def test_a_file_that_another_machine_writes_late_is_seen(tmp_path, monkeypatch) -> None:
    mark = Mark(str(tmp_path / ".cluster"), "x")
    monkeypatch.setattr(time, "sleep", lambda _: Path(mark.path).write_text("x"))
    assert clusters._sees(mark)


def test_a_folder_has_one_mark_however_many_runs_share_it(tmp_path) -> None:
    one, two = Cluster.__new__(Cluster), Cluster.__new__(Cluster)
    one.share(tmp_path / "run")
    two.share(tmp_path / "run")
    assert one.mark == two.mark
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".cluster"]


def test_the_mark_of_a_run_that_began_a_moment_before_stays(tmp_path, monkeypatch) -> None:
    first, second = Cluster.__new__(Cluster), Cluster.__new__(Cluster)
    is_file = Path.is_file

    def not_yet(_: Path) -> bool:
        """The second looks; before it writes, the first has written."""
        monkeypatch.setattr(Path, "is_file", is_file)
        first.share(tmp_path)
        return False

    monkeypatch.setattr(Path, "is_file", not_yet)
    second.share(tmp_path)
    assert first.mark == second.mark
    assert [path.name for path in tmp_path.iterdir()] == [".cluster"]


def test_work_is_packed_and_done(monkeypatch) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'biomistral[cluster]'")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert call(clusters.__version__, 1, None, packed(max, 1, 2)) == 2


def test_a_machine_without_the_package_is_told() -> None:
    class Lost:
        cause = ModuleNotFoundError("No module named 'biomistral'")

    error = clusters._cause(Lost())
    assert isinstance(error, InputError)
    assert "a machine has no biomistral" in str(error)


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
