"""What a cluster costs and brings: overhead of a task, one worker beside two, one of two killed.

    python benchmarks/bench_cluster.py WORK [--recipe recipes/miniature.yaml] [--set KEY=VALUE ...]
        [--tasks 200] [--result FILE.md]
    python benchmarks/bench_cluster.py WORK --articles FOLDER [--copies 10] [--limit 8]

The second measures a run that is nearly all parallel: a corpus of copies of the articles in FOLDER, and a
model of 20 million parameters asked in 12 units. It is run by one worker and by two, and beside that
by one plain process, and by two of them that have nothing to do with each other: what two
processors of this machine can give at all.

Machines are stood for by Ray nodes of this one, each pinned to a processor of its own, so the machine
needs two that are idle. The recipe is run in this process on one processor, then on one worker, on
two, and on two of which one is killed in the middle; all four must end in the same bytes. The world of
the miniature is made first.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

HEAD = "127.0.0.1:26379"


def main() -> int:
    options = read_options()
    os.environ |= {"RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    os.environ.setdefault("MINIATURE", str(options.work / "world"))
    if not Path(os.environ["MINIATURE"]).is_dir():
        run(["biomistral", "miniature", os.environ["MINIATURE"]])
    if options.articles:
        return measure_parallel(options)
    command = ["biomistral", "run", str(options.recipe)]
    for change in options.changes:
        command += ["--set", change]

    def timed(name: str, *words: str, kill_after: float | None = None) -> float:
        started = time.perf_counter()
        whole = ["taskset", "-c", "0", *command, "--out", str(options.work / name), *words]
        process = subprocess.Popen(whole, stdout=subprocess.DEVNULL)
        if kill_after is not None:
            time.sleep(kill_after)
            machines.kill_second()
        if process.wait() != 0:
            raise SystemExit(f"{name}: the run failed")
        return time.perf_counter() - started

    seconds = {"in this process, one processor": timed("here")}
    with Machines(1):
        overhead = seconds_a_task(options.tasks)
        seconds["one worker"] = timed("one", "--cluster", HEAD)
    with Machines(2):
        seconds["two workers"] = timed("two", "--cluster", HEAD)
    with Machines(2) as machines:
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
        # Short, for sockets lie in it; and by it the processes are known that were started here.
        self.folder = tempfile.mkdtemp(prefix="bench-ray-", dir="/tmp")

    def __enter__(self) -> Self:
        run(["ray", "start", "--head", "--port", HEAD.split(":")[1], "--num-cpus", "0",
             "--node-ip-address", "127.0.0.1", "--include-dashboard", "false",
             "--temp-dir", self.folder])  # fmt: skip
        for index in range(self.num_workers):
            run(["taskset", "-c", str(index), "ray", "start", "--address", HEAD, "--num-cpus", "1",
                 "--node-ip-address", f"127.0.0.{index + 2}"])  # fmt: skip
        return self

    def __exit__(self, *error: object) -> None:
        self._kill("")
        shutil.rmtree(self.folder, ignore_errors=True)

    def kill_second(self) -> None:
        """Kill all of the second worker at once."""
        self._kill("127.0.0.3")

    def _kill(self, words: str) -> None:
        for place in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                line = place.read_bytes().decode(errors="replace")
                if self.folder in line and words in line:
                    os.kill(int(place.parent.name), signal.SIGKILL)


PARALLEL = """
name: parallel
models:
  blank:
    architecture: {hidden_size: 384, intermediate_size: 1024, num_hidden_layers: 8,
      num_attention_heads: 6, num_key_value_heads: 2, max_position_embeddings: 4096}
    tokenizer: {corpora: [general], vocabulary_size: 8000}
corpus:
  - {name: general, texts: "${MINIATURE}/general/*.jsonl", sequence_length: 512}
  - {name: articles, articles: "${ARTICLES}/**/*.xml", sequence_length: 2048, tokenizer: blank}
benchmark: {data: "${MINIATURE}/benchmark"}
evaluate: {models: [blank], tasks: [treatment, trial], languages: [en, fr, es], shots: 3, seeds: [1, 2],
  limit: LIMIT, scoring: [letter], precision: float32, cost: false, find_overlap: false}
"""


def measure_parallel(options: argparse.Namespace) -> int:
    """Print what a second worker brings, and what a second processor can bring."""
    work: Path = options.work.resolve()
    os.environ["ARTICLES"] = str(work / "articles")
    for copy in range(options.copies):
        target = work / "articles" / f"{copy:02d}"
        if not target.is_dir():
            shutil.copytree(options.articles, target)
    recipe = work / "parallel.yaml"
    recipe.write_text(PARALLEL.replace("LIMIT", str(options.limit)), encoding="utf-8")
    prepared = work / "prepared"
    command = ["biomistral", "run", str(recipe)]
    run(
        [*command, "--out", str(prepared), "--only", "model/blank", "--only", "questions/benchmark"]
    )
    whole = [*command, "--only", "tokens/articles", "--only", "predictions/blank"]

    def start(name: str, processor: int, *words: str) -> subprocess.Popen[bytes]:
        shutil.rmtree(work / name, ignore_errors=True)
        shutil.copytree(prepared, work / name)
        pinned = ["taskset", "-c", str(processor), *whole, "--out", str(work / name), *words]
        return subprocess.Popen(pinned, stdout=subprocess.DEVNULL)

    def timed(*processes: subprocess.Popen[bytes]) -> float:
        codes = [process.wait() for process in processes]
        if any(codes):
            raise SystemExit("a run failed")
        return time.perf_counter() - started

    seconds = {}
    started = time.perf_counter()
    seconds["one plain process"] = timed(start("plain", 0))
    started = time.perf_counter()
    seconds["two plain processes, the work twice"] = timed(start("left", 0), start("right", 1))
    for number, name in ((1, "one worker"), (2, "two workers")):
        with Machines(number):
            started = time.perf_counter()
            seconds[name] = timed(start(f"by{number}", 0, "--cluster", HEAD))
    plain, twice, one, two = seconds.values()
    names = ("plain", "left", "right", "by1", "by2")
    digests = [artefacts(work / name) for name in names]
    same = all(each == digests[0] for each in digests)
    lines = ["| | seconds |", "|---|---:|", *(f"| {k} | {v:.1f} |" for k, v in seconds.items())]
    lines += [
        "",
        f"Two workers beside one: {one / two:.2f} times as fast.",
        f"Two plain processes beside one: {2 * plain / twice:.2f} times the work in the same time.",
        f"One worker beside a plain process: {one / plain:.2f} times as long.",
        f"Artefacts: {len(digests[0])}, bytes {'equal' if same else 'DIFFERENT'} in all runs.",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.result:
        options.result.write_text(text, encoding="utf-8")
    return 0 if same else 1


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
    parser.add_argument("--articles", type=Path, help="folder of JATS files: measure parallel work")
    parser.add_argument("--copies", type=int, default=10, help="of these files")
    parser.add_argument("--limit", type=int, default=8, help="questions a task and language")
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--result", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
