"""Merging against its bound and against mergekit: wall time, CPU time and memory, side by side.

    python benchmarks/bench_merge.py WORK [--size 1b|7b] [--rounds 3] [--threads 1 2]
        [--methods linear slerp ...] [--mergekit PATH_OF_mergekit-yaml] [--result FILE.md]

WORK gets the checkpoints (see merge_pair.py) and the outputs; it should be on the disk that merges
use. Everything is a process of its own, start-up included; what it wrote is removed before the next
one starts. A round is for each method the bound, ours, the bound again, mergekit's. A ratio to the
bound is to the mean of the two around ours, and the table gives the median over the rounds: where
new memory is slow, the same command takes up to three times as long from one minute to the next.

The bound is bare_loop.c: read both inputs, one fused operation, write, no names and no checks. The
same in PyTorch is shown beside it. Anonymous memory is the highest seen, looked at every 10 ms.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import merge_pair

HERE = Path(__file__).parent
GRADIENTS = """  t:
    - {filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1]}
    - {filter: mlp, value: [1, 0.5, 0.7, 0.3, 0]}
    - {value: 0.5}"""
CONFIGS = {
    "linear": """merge_method: linear
models:
  - {model: A, parameters: {weight: 0.4}}
  - {model: B, parameters: {weight: 0.6}}""",
    "slerp": f"""merge_method: slerp
base_model: A
models: [{{model: A}}, {{model: B}}]
parameters:
{GRADIENTS}""",
    "task_arithmetic": """merge_method: task_arithmetic
base_model: A
models: [{model: B, parameters: {weight: 0.5}}]""",
    "dare_ties": """merge_method: dare_ties
base_model: A
models: [{model: B, parameters: {weight: 0.5, density: 0.5}}]""",
    "ties": """merge_method: ties
base_model: A
models: [{model: B, parameters: {weight: 0.5, density: 0.5}}]
parameters: {normalize: true}""",
    "ties of two": """merge_method: ties
base_model: A
models:
  - {model: B, parameters: {weight: 0.5, density: 0.5}}
  - {model: C, parameters: {weight: 0.5, density: 0.5}}
parameters: {normalize: true}""",
}
BOUND = "bare loop in C"
Measured: TypeAlias = "tuple[str, Cost, Cost]"


@dataclass(frozen=True)
class Cost:
    """What one run took."""

    wall_seconds: float
    cpu_seconds: float
    anonymous_mb: float


def measured(command: list[str], out: Path, threads: int) -> Cost:
    """Run one command that writes to ``out`` and remove what it wrote."""
    shutil.rmtree(out, ignore_errors=True)
    os.sync()
    processors = sorted(os.sched_getaffinity(0))[:threads]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    highest = [0.0]
    start = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    child = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=lambda: os.sched_setaffinity(0, processors),  # noqa: PLW1509
    )
    watcher = threading.Thread(target=watch, args=(child, highest))
    watcher.start()
    text = child.communicate()[0]
    wall = time.perf_counter() - start
    watcher.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if child.returncode:
        sys.exit(f"{' '.join(command)}\n{text.decode()[-2000:]}")
    shutil.rmtree(out, ignore_errors=True)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall, cpu, highest[0])


def watch(child: subprocess.Popen[bytes], highest: list[float]) -> None:
    status = Path(f"/proc/{child.pid}/status")
    while child.poll() is None:
        try:
            lines = status.read_text().splitlines()
        except OSError:
            return
        anonymous = [int(line.split()[1]) / 1000 for line in lines if line.startswith("RssAnon")]
        highest[0] = max(highest[0], *anonymous, 0.0)
        time.sleep(0.01)


def bounds(work: Path, models: list[Path], out: Path, threads: int) -> dict[str, list[str]]:
    """Return the commands that do nothing but what must be done."""
    bare = work / "bare_loop"
    source = HERE / "bare_loop.c"
    if not bare.exists() or bare.stat().st_mtime < source.stat().st_mtime:
        subprocess.run(["cc", "-O3", "-pthread", "-o", bare, source], check=True)
    files = [",".join(map(str, sorted(m.glob("*.safetensors")))) for m in models[:2]]
    return {
        BOUND: ["sh", "-c", f"mkdir {out}; {bare} {out} {threads} {files[0]} {files[1]}"],
        "bare loop in PyTorch": [
            *(sys.executable, str(Path(__file__).resolve()), "--torch-loop"),
            *(str(out), str(models[0]), str(models[1])),
        ],
    }


def merges(work: Path, method: str, models: list[Path], out: Path) -> list[str]:
    """Write a configuration; return what both programs are to be called with."""
    text = CONFIGS[method]
    for letter, folder in zip("ABC", models, strict=False):
        text = text.replace(f"model: {letter}", f"model: {folder}")
    config = work / f"{method.replace(' ', '-')}.yml"
    config.write_text(f"{text}\ndtype: bfloat16\n")
    return [str(config), str(out)]


def rounds(models: list[Path], threads: int, given: argparse.Namespace) -> Iterator[Measured]:
    """Run everything; yield the name of each command, its cost and the bound's around it."""
    out = given.work / "out"
    bare = bounds(given.work, models, out, threads)
    measured(bare[BOUND], out, threads)  # the first one pays for what the others find
    for _ in range(given.rounds):
        name = "bare loop in PyTorch"
        before = measured(bare[BOUND], out, threads)
        yield name, measured(bare[name], out, threads), before
        for method in given.methods:
            words = merges(given.work, method, models, out)
            before = measured(bare[BOUND], out, threads)
            ours = measured([sys.executable, "-m", "biomistral", "merge", *words], out, threads)
            after = measured(bare[BOUND], out, threads)
            around = mean(before, after)
            yield BOUND, around, around
            yield f"biomistral, {method}", ours, around
            if given.mergekit:
                theirs = measured([given.mergekit, *words], out, threads)
                yield f"mergekit, {method}", theirs, around


def mean(one: Cost, other: Cost) -> Cost:
    return Cost(
        (one.wall_seconds + other.wall_seconds) / 2,
        (one.cpu_seconds + other.cpu_seconds) / 2,
        max(one.anonymous_mb, other.anonymous_mb),
    )


def torch_loop(out: Path, a: Path, b: Path) -> None:
    """Map both, one bfloat16 operation a tensor, write."""
    import torch

    from biomistral.models.checkpoints import Checkpoint
    from biomistral.models.safetensors_files import TensorSpec
    from biomistral.models.writing import CheckpointWriter

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    first, second = Checkpoint(a), Checkpoint(b)
    out.mkdir()
    tensors = [TensorSpec(t.name, t.shape, t.dtype) for t in first.tensors.values()]
    writer = CheckpointWriter(out, tensors)
    for tensor in tensors:
        writer.write(
            tensor.name, torch.lerp(first.tensor(tensor.name), second.tensor(tensor.name), 0.3)
        )


def table(runs: dict[str, list[tuple[Cost, Cost]]]) -> list[str]:
    """Medians over the rounds, each run beside its bound; mergekit's last two ratios are to ours."""
    lines = [
        "| | wall s | CPU s | anonymous MB | wall / bound | CPU / bound | wall of mergekit | CPU |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, costs in runs.items():
        own = [cost for cost, _ in costs]
        bound = [around for _, around in costs]
        cells = [
            f"{statistics.median(cost.wall_seconds for cost in own):.1f}",
            f"{statistics.median(cost.cpu_seconds for cost in own):.1f}",
            f"{max(cost.anonymous_mb for cost in own):,.0f}",
            ratio(own, bound, "wall_seconds"),
            ratio(own, bound, "cpu_seconds"),
        ]
        peer = runs.get(name.replace("biomistral, ", "mergekit, "))
        if name.startswith("biomistral") and peer:
            theirs = [cost for cost, _ in peer]
            cells += [ratio(theirs, own, "wall_seconds"), ratio(theirs, own, "cpu_seconds")]
        else:
            cells += ["", ""]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def ratio(these: list[Cost], those: list[Cost], what: str) -> str:
    ratios = [getattr(a, what) / getattr(b, what) for a, b in zip(these, those, strict=True)]
    return f"{statistics.median(ratios):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--size", choices=merge_pair.SIZES, default="1b")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--methods", nargs="+", choices=CONFIGS, default=list(CONFIGS))
    parser.add_argument("--mergekit", help="path of mergekit-yaml, in an environment of its own")
    parser.add_argument("--result", type=Path, help="Markdown file to write the tables to")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    num_models = 3 if "ties of two" in given.methods else 2
    models = merge_pair.make(given.work, given.size, num_models)
    lines = [f"{given.size} checkpoints, {given.rounds} rounds, {processor()}", ""]
    for threads in given.threads:
        runs: dict[str, list[tuple[Cost, Cost]]] = {}
        for name, cost, around in rounds(models, threads, given):
            runs.setdefault(name, []).append((cost, around))
            print(f"threads {threads}: {name}: {cost}", flush=True)
        lines += [f"{threads} thread{'s' * (threads > 1)}:", "", *table(runs), ""]
        print("\n".join(lines), flush=True)
    if given.result:
        given.result.write_text("\n".join(lines))


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return f"{line.partition(':')[2].strip()}, {len(os.sched_getaffinity(0))} processors"
    return platform.machine()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--torch-loop"]:
        torch_loop(*map(Path, sys.argv[2:]))
    else:
        main()
