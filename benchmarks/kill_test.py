"""Kill a run again and again with SIGKILL and see whether it ends in the same bytes all the same.

    python benchmarks/kill_test.py
    python benchmarks/kill_test.py --kills 4 --set pretrain.base.epochs=0.2 --set evaluate.limit=2

The recipe is run twice: once undisturbed, and once killed with its whole process group at moments
spread over the length of the undisturbed run, and run again after each kill. After each kill, every
folder that looks like an artefact must be one: it has a manifest, and its files have the digest in
it. At the end, every artefact must have the bytes of the undisturbed run (manifests and files that
hold timings apart). Exit status: 0 if all of that holds, 1 if not.

Needs Linux, an installed ``biomistral`` and, for the miniature recipe, nothing else: its world is
made first, unless the environment variable MINIATURE names one.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biomistral.artifacts import content_digest, read_manifest

DEFAULT_RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "miniature.yaml"


@dataclass(frozen=True)
class Attempt:
    """One start of the run: how long it lived, and what it left."""

    seconds: float
    was_killed: bool
    interrupted: str  # the step that was running
    num_whole: int
    problems: list[str]


def main() -> int:
    options = read_options()
    work = options.work or Path(tempfile.mkdtemp(prefix="kill-test-"))
    environment = os.environ | {"MINIATURE": os.environ.get("MINIATURE", str(work / "world"))}
    if not Path(environment["MINIATURE"]).is_dir():
        command("miniature", environment["MINIATURE"], environment=environment, log=work / "log")
    calm, disturbed = work / "undisturbed", work / "killed"
    refuse_leftovers(calm, disturbed)
    # A copy, so that nobody edits the recipe between the two runs.
    recipe = Path(shutil.copy(options.recipe, work / "recipe.yaml"))
    runner = Runner(recipe, options.changes, environment, work / "log")

    print(f"undisturbed run in {calm}", flush=True)
    whole_seconds = runner.run(calm).seconds
    costs = {key: manifest["seconds"] for key, manifest in manifests(calm).items()}
    start_seconds = max(0.0, whole_seconds - sum(costs.values()))  # loading libraries and planning
    print(f"{whole_seconds:.1f} s, of it {start_seconds:.1f} to start; {len(costs)} artefacts\n")
    print(f"killed run in {disturbed}\nkill  seconds  artefacts whole  running", flush=True)

    generator = random.Random(options.seed)
    problems: list[str] = []
    for kill in range(options.kills):
        # Aim at a moment of this kill's share of the whole work, counted in undisturbed seconds.
        aim = (kill + generator.random()) / options.kills * sum(costs.values())
        done = sum(costs[key] for key in manifests(disturbed) if key in costs)
        delay = start_seconds + max(0.1, aim - done)
        attempt = runner.run(disturbed, kill_after_seconds=delay)
        print(f"{kill + 1:4} {attempt.seconds:8.1f} {attempt.num_whole:16}  {attempt.interrupted}")
        sys.stdout.flush()
        problems += [f"after kill {kill + 1}: {problem}" for problem in attempt.problems]
        if not attempt.was_killed:
            print("     (it came to its end before it could be killed)")
            break
    last = runner.run(disturbed)
    print(f" end {last.seconds:8.1f} {last.num_whole:16}\n")
    return verdict([*problems, *last.problems, *differences(calm, disturbed)], len(costs), work)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=10, help="how often to kill the run")
    parser.add_argument("--recipe", type=Path, default=DEFAULT_RECIPE)
    parser.add_argument("--seed", type=int, default=0, help="draws the moments")
    parser.add_argument("--work", type=Path, help="folder for both runs; default: a temporary one")
    parser.add_argument(
        "--set", action="append", default=[], dest="changes", metavar="PATH=VALUE",
        help="change one value of the recipe; can be repeated",
    )  # fmt: skip
    options = parser.parse_args()
    if options.work:
        options.work = options.work.absolute()
        options.work.mkdir(parents=True, exist_ok=True)
    return options


def command(*words: str, environment: dict[str, str], log: Path) -> None:
    with log.open("a") as stream:
        subprocess.run(
            [sys.executable, "-m", "biomistral", *words],
            check=True, env=environment, stdout=stream, stderr=subprocess.STDOUT,
        )  # fmt: skip


def refuse_leftovers(*folders: Path) -> None:
    for folder in folders:
        if folder.exists():
            sys.exit(f"error: {folder} is there already; name an empty --work folder")


@dataclass(frozen=True)
class Runner:
    """Starts the recipe in a process group of its own."""

    recipe: Path
    changes: Sequence[str]
    environment: dict[str, str]
    log: Path

    def run(self, out: Path, *, kill_after_seconds: float | None = None) -> Attempt:
        """Run the recipe into ``out``, to its end or until it is killed.

        Ends the test if the run itself fails.
        """
        words = [sys.executable, "-m", "biomistral", "run", str(self.recipe), "--out", str(out)]
        for change in self.changes:
            words += ["--set", change]
        started = time.monotonic()
        with self.log.open("a") as stream:
            process = subprocess.Popen(
                words, env=self.environment, start_new_session=True,
                stdout=stream, stderr=subprocess.STDOUT,
            )  # fmt: skip
            try:
                process.wait(kill_after_seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        seconds = time.monotonic() - started
        if process.returncode not in {0, -signal.SIGKILL}:
            sys.exit(f"error: the run ended with status {process.returncode}; see {self.log}")
        was_killed = process.returncode != 0
        running = [f"{p.parent.name}/{p.name[1:-21]}" for p in sorted(out.glob("*/*/.*.partial"))]
        interrupted = ", ".join(running) or "(between steps)"
        return Attempt(seconds, was_killed, interrupted, len(manifests(out)), broken(out))


def manifests(out: Path) -> dict[str, dict[str, Any]]:
    """Manifest of each whole artefact by ``kind/name``."""
    found = {folder: read_manifest(folder) for folder in artefact_folders(out)}
    return {f"{f.parent.name}/{f.name}": manifest for f, manifest in found.items() if manifest}


def artefact_folders(out: Path) -> list[Path]:
    """Folders that a reader would take for an artefact: ``<out>/<recipe>/<kind>/<name>``."""
    found = {f for f in out.glob("*/*/*") if f.is_dir() and not f.name.startswith(".")}
    return sorted(found - set(out.glob("*/board/*")))  # what TensorBoard shows


def broken(out: Path) -> list[str]:
    """What is wrong with the folders that look like artefacts."""
    problems = []
    for folder in artefact_folders(out):
        manifest = read_manifest(folder)
        if manifest is None:
            problems.append(f"{folder} looks like an artefact and has no manifest")
        elif content_digest(folder) != manifest["content_sha256"]:
            problems.append(f"{folder} has other bytes than its manifest says")
    return problems


def differences(calm: Path, disturbed: Path) -> list[str]:
    """Artefacts that one of two finished runs lacks, or that differ."""
    one, other = manifests(calm), manifests(disturbed)
    problems = [f"{key}: only one of the two runs made it" for key in sorted(one.keys() ^ other)]
    problems += [
        f"{key}: other bytes after kills than without"
        for key in sorted(one.keys() & other)
        if one[key]["content_sha256"] != other[key]["content_sha256"]
    ]
    left = [path for path in disturbed.rglob(".*") if path.name.endswith((".partial", ".old"))]
    return problems + [f"{path}: left behind" for path in left]


def verdict(problems: Sequence[str], num_artefacts: int, work: Path) -> int:
    for problem in problems:
        print(f"WRONG  {problem}")
    if not problems:
        print(f"the same: {num_artefacts} artefacts, byte for byte; none was ever half made")
    print(f"everything is in {work}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
