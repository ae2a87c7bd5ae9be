"""What a cluster costs and brings: overhead of a task, one worker beside two, one of two killed.

    python benchmarks/bench_cluster.py WORK [--recipe recipes/miniature.yaml] [--set KEY=VALUE ...]
        [--tasks 200] [--result FILE.md]

Machines are stood for by Ray nodes of this one, each pinned to a processor of its own, so the machine
needs two that are idle. The recipe is run in this process on one processor, then on one worker, on
two, and on two of which one is killed in the middle; all four must end in the same bytes. The world of
the miniature is made first.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

HEAD = "127.0.0.1:26379"


def main() -> int:
    options = read_options()
    os.environ |= {"RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    os.environ.setdefault("MINIATURE", str(options.work / "world"))
    if not Path(os.environ["MINIATURE"]).is_dir():
        run(["biomistral", "miniature", os.environ["MINIATURE"]])
    command = ["biomistral", "run", str(options.recipe)]
    for change in options.changes:
        command += ["--set", change]

    def timed(name: str, *words: str, kill_after: float | None = None) -> float:
        started = time.perf_counter()
        whole = ["taskset", "-c", "0", *command, "--out", str(options.work / name), *words]
        process = subprocess.Popen(whole, stdout=subprocess.DEVNULL)
        if kill_after is not None:
            time.sleep(kill_after)
            subprocess.run(["pkill", "-9", "-f", "node-ip-address=127.0.0.3"], check=False)
        if process.wait() != 0:
            raise SystemExit(f"{name}: the run failed")
        return time.perf_counter() - started

    seconds = {"in this process, one processor": timed("here")}
    with Machines(1):
        overhead = seconds_a_task(options.tasks)
        seconds["one worker"] = timed("one", "--cluster", HEAD)
    with Machines(2):
        seconds["two workers"] = timed("two", "--cluster", HEAD)
    with Machines(2):
        middle = seconds["two workers"] / 2
        seconds["two workers, one killed in the middle"] = timed(
            "killed", "--cluster", HEAD, kill_after=middle
        )
    digests = [artefacts(options.work / name) for name in ("here", "one", "two", "killed")]
    same = all(each == digests[0] for each in digests)
    table = ["| | seconds | of one worker |", "|---|---:|---:|"]
    table += [f"| {k} | {v:.1f} | {v / seconds['one worker']:.2f} |" for k, v in seconds.items()]
    table += ["", f"A task that does nothing: {1e3 * overhead:.1f} ms, {options.tasks} at a time."]
    table += [
        f"Artefacts: {len(digests[0])}, bytes {'equal' if same else 'DIFFERENT'} in all runs."
    ]
    text = "\n".join(table) + "\n"
    print(text)
    if options.result:
        options.result.write_text(text, encoding="utf-8")
    return 0 if same else 1


class Machines:
    """A head without processors, and workers of one each, pinned to it."""

    def __init__(self, num_workers: int) -> None:
        self.num_workers = num_workers

    def __enter__(self) -> None:
        run(["ray", "start", "--head", "--port", HEAD.split(":")[1], "--num-cpus", "0",
             "--node-ip-address", "127.0.0.1", "--include-dashboard", "false"])  # fmt: skip
        for index in range(self.num_workers):
            run(["taskset", "-c", str(index), "ray", "start", "--address", HEAD, "--num-cpus", "1",
                 "--node-ip-address", f"127.0.0.{index + 2}"])  # fmt: skip

    def __exit__(self, *error: object) -> None:
        run(["ray", "stop", "--force"])


def seconds_a_task(num_tasks: int) -> float:
    """Return the seconds that a task takes on the way, of many at a time."""
    from biomistral.pipeline.cluster import Cluster

    cluster = Cluster(HEAD)
    list(cluster.run_all(abs, range(20)))  # workers are started
    started = time.perf_counter()
    list(cluster.run_all(abs, range(num_tasks)))
    seconds = time.perf_counter() - started
    cluster.close()
    return seconds / num_tasks


def artefacts(root: Path) -> dict[str, str]:
    from biomistral.artifacts import content_digest

    return {
        str(path.parent.relative_to(root)): content_digest(path.parent)
        for path in sorted(root.glob("*/*/*/manifest.json"))
    }


def run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def read_options() -> argparse.Namespace:
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--recipe", type=Path, default=here.parent / "recipes" / "miniature.yaml")
    parser.add_argument("--set", dest="changes", action="append", default=[])
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--result", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
