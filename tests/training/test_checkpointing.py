"""Only whole checkpoints count, and the newest of them wins."""

from __future__ import annotations

from pathlib import Path

from biomistral.training import processes
from biomistral.training.checkpointing import (
    COMPLETE,
    mark_complete,
    newest_complete,
    newest_of_all,
    step_of,
)


def write(folder: Path, step: int, *, whole: bool) -> Path:
    checkpoint = folder / f"checkpoint-{step}"
    (checkpoint / "parts").mkdir(parents=True)
    (checkpoint / "weights").write_text(str(step))
    (checkpoint / "parts" / "one").write_text("1")
    if whole:
        mark_complete(checkpoint)
    return checkpoint


def test_there_is_none_at_first(tmp_path):
    assert newest_complete(tmp_path) is None


def test_the_newest_by_number_wins_not_by_name_or_time(tmp_path):
    write(tmp_path, 1000, whole=True)
    write(tmp_path, 90, whole=True)
    write(tmp_path, 200, whole=True)
    newest = newest_complete(tmp_path)
    assert newest == tmp_path / "checkpoint-1000"
    assert (step_of(newest), step_of(None)) == (1000, 0)


def test_what_is_not_whole_is_removed_however_new(tmp_path):
    write(tmp_path, 10, whole=True)
    write(tmp_path, 20, whole=False)
    assert newest_complete(tmp_path) == tmp_path / "checkpoint-10"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-10"]


def test_when_none_is_whole_nothing_is_left(tmp_path):
    write(tmp_path, 10, whole=False)
    write(tmp_path, 20, whole=False)
    assert newest_complete(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_only_who_sweeps_removes(tmp_path):
    write(tmp_path, 10, whole=True)
    late = write(tmp_path, 20, whole=False)
    assert newest_complete(tmp_path, sweep=False) == tmp_path / "checkpoint-10"
    assert late.is_dir()


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "notes").write_text("mine")
    write(tmp_path, 10, whole=True)
    newest_complete(tmp_path)
    assert (tmp_path / "notes").read_text() == "mine"


def test_marking_changes_nothing_else(tmp_path):
    checkpoint = write(tmp_path, 10, whole=False)
    mark_complete(checkpoint)
    files = {p.relative_to(checkpoint).as_posix() for p in checkpoint.rglob("*") if p.is_file()}
    assert files == {"weights", "parts/one", COMPLETE}
    assert (checkpoint / "weights").read_text() == "10"


def test_of_several_processes_the_first_sweeps_and_the_others_look_when_it_has(
    tmp_path, monkeypatch
):
    there_when_waiting = []

    def wait() -> None:
        there_when_waiting.append((tmp_path / "checkpoint-20").exists())

    monkeypatch.setattr(processes, "wait_for_all", wait)
    write(tmp_path, 20, whole=False)
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        assert newest_of_all(tmp_path) is None
    assert there_when_waiting == [True, False]
