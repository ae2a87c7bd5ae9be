from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from biomistral.advisory import ADVISORY
from biomistral.artifacts import read_manifest


def _rows(out: str) -> dict[str, list[str]]:
    """Cells of the tables in an output, by the first cell of their row."""
    lines = [line for line in out.splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]
    return {row[0]: row[1:] for row in cells}


def test_a_run_says_what_it_made_and_how_large_it_is(
    command, write, merge_text: str, tmp_path: Path
) -> None:
    recipe = write(merge_text)
    finished = command("run", recipe, "--out", tmp_path / "runs")
    assert finished.status == 0
    assert f"small: 1 of 1 steps to do, in {tmp_path}/runs/small" in finished.out
    state, seconds, size = _rows(finished.out)["model/m"]
    assert state == "made"
    assert seconds.endswith(" s")
    assert size.endswith(" MB")
    assert ADVISORY in " ".join(finished.out.split())
    assert read_manifest(tmp_path / "runs/small/model/m") is not None


def test_the_second_run_skips_what_is_there(
    command, write, merge_text: str, tmp_path: Path
) -> None:
    recipe = write(merge_text)
    command("run", recipe, "--out", tmp_path / "runs")
    kept = tmp_path / "runs/small/recipe.yaml"
    os.utime(kept, (0, 0))
    finished = command("run", recipe, "--out", tmp_path / "runs")
    assert "0 of 1 steps to do" in finished.out
    assert _rows(finished.out)["model/m"][0] == "skipped"
    assert kept.stat().st_mtime == 0, "a finished run may be read only"


def test_a_dry_run_shows_reasons_and_makes_nothing(
    command, write, merge_text: str, tmp_path: Path
) -> None:
    recipe, out = write(merge_text), tmp_path / "runs"
    first = command("run", recipe, "--out", out, "--dry-run")
    assert (first.status, _rows(first.out)["model/m"]) == (0, ["new", ""])
    assert not out.exists()
    command("run", recipe, "--out", out)
    there = command("run", recipe, "--out", out, "--dry-run")
    assert _rows(there.out)["model/m"] == ["is there", ""]
    changed = command("run", recipe, "--out", out, "--dry-run", "--set", "merge.m.t=0.25")
    assert _rows(changed.out)["model/m"] == ["changed", "t: 0.5 -> 0.25"]


def test_a_dry_run_lists_what_is_missing_and_is_no_error(
    command, write, merge_text: str, tmp_path: Path
) -> None:
    text = merge_text + "corpus: {texts: 'gone/[a]/*.txt', tokenizer: a}\n"
    finished = command("run", write(text), "--out", tmp_path / "runs", "--dry-run")
    assert finished.status == 0
    (line,) = [line for line in finished.out.splitlines() if line.startswith("missing: ")]
    assert "'gone/[a]/*.txt' matches no files" in line, "brackets are printed as they are"


def test_only_runs_what_is_named_and_what_it_needs(
    command, write, merge_text: str, tmp_path: Path
) -> None:
    entry = "{name: n, method: slerp, base: m, models: [{model: b}], t: 0.5}]"
    text = merge_text.replace("t: 0.5}]", f"t: 0.5}}, {entry}")
    assert list(_rows(_dry(command, write(text), tmp_path, "m"))) == ["model/m"]
    assert list(_rows(_dry(command, write(text), tmp_path, "n"))) == ["model/m", "model/n"]
    unknown = command("run", write(text), "--only", "mm", "--out", tmp_path / "runs")
    assert unknown.status == 2
    assert "--only mm: no step is called so" in unknown.err


def _dry(command, recipe: Path, tmp_path: Path, name: str) -> str:
    out: str = command("run", recipe, "--out", tmp_path, "--dry-run", "--only", name).out
    return out


def test_folders_with_brackets_are_printed_as_they_are(
    command, write, merge_text: str, tmp_path: Path
) -> None:
    finished = command("run", write(merge_text), "--out", tmp_path / "runs[bold]")
    assert "runs[bold]/small" in finished.out
    assert finished.status == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_with_130_and_leaves_nothing_half_made(
    number: signal.Signals, write, tiny_model: Path, miniature_world: Path, tmp_path: Path
) -> None:
    recipe = write(
        f"name: small\nmodels: {{a: {{path: {tiny_model}}}}}\n"
        f"corpus: {{texts: {miniature_world}/general/en.jsonl, sequence_length: 64}}\n"
        "pretrain: [{name: p, model: a, epochs: 1000, precision: float32}]\n"
    )
    program = "from biomistral.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", program, "run", recipe, "--out", tmp_path / "runs"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # What runs in the background of a shell inherits that interruptions are ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    ) as running:
        while running.poll() is None and not list(tmp_path.glob("runs/small/model/.p.*")):
            time.sleep(0.05)
        running.send_signal(number)
        assert running.stderr is not None
        said = running.stderr.read()
    assert running.returncode == 130, said
    assert "interrupted; run the same command again" in said
    assert "Traceback" not in said
    assert read_manifest(tmp_path / "runs/small/tokens/corpus") is not None
    assert not (tmp_path / "runs/small/model/p").exists()
