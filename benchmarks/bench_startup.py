"""CPU seconds that the command line takes to answer, beside what importing PyTorch would cost.

    python benchmarks/bench_startup.py [--repeats 5]

CPU time of the child process (user and system), least of the repeats, so that other work on the
machine matters little. The bound is one second for ``biomistral --help``.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "biomistral --help": [sys.executable, "-m", "biomistral", "--help"],
    "biomistral recipe explain": [
        sys.executable,
        "-m",
        "biomistral",
        "recipe",
        "explain",
        "recipes/biomistral-7b.yaml",
    ],
    "biomistral run --dry-run": [
        sys.executable,
        "-m",
        "biomistral",
        "run",
        "recipes/biomistral-7b.yaml",
        "--dry-run",
    ],
    "import torch": [sys.executable, "-c", "import torch"],
    "import torch, transformers": [
        sys.executable,
        "-c",
        "import torch; from transformers import AutoModelForCausalLM",
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    print("| command | CPU seconds |\n|---|---|")
    for label, command in COMMANDS.items():
        seconds = min(cpu_seconds(command) for _ in range(repeats))
        print(f"| `{label}` | {seconds:.2f} |")


def cpu_seconds(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


if __name__ == "__main__":
    main()
