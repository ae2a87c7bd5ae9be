"""Every published set in a folder, whole, through a small model: does measuring work on real input?

    python benchmarks/run_real_sets.py WORK --data FOLDER (--articles FOLDER | --models NAME=FOLDER ...)
        [--tasks all] [--vocabulary 8192] [--set FIELD=VALUE] [--result FILE.md]

Without --models, recipes/pmc-sample.yaml trains one on the JATS files of --articles; it is measured
beside the random weights it started from. ``biomistral evaluate`` then asks all tasks and languages of
FOLDER with three worked examples, three seeds, letter and cloze scoring, and TruthfulQA once more with
the other prompt. A run that was stopped goes on where it was. What a part took is the time between the
files of answers (wall, so other work on the machine is in it); the CPU time is that of the processes.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

RECIPE = Path(__file__).parent.parent / "recipes" / "pmc-sample.yaml"
TRUTHFUL = (
    "truthfulqa,truthfulqa_health,truthfulqa_nutrition,truthfulqa_psychology,truthfulqa_science"
)
METRICS = ("accuracy", "ece", "ece_temperature")


def main() -> None:
    """Train, evaluate, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--articles")
    parser.add_argument("--models", nargs="+", default=[])
    parser.add_argument("--tasks", default="all")
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--set", dest="changes", action="append", default=[])
    parser.add_argument("--result", type=Path)
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    models = asked.models or _trained(asked.work, asked.articles, asked.data, asked.vocabulary)
    everything = ["--tasks", asked.tasks, "--languages", "all", "--shots", "3", "--seeds", "1,2,3"]
    other_prompt = ["--tasks", TRUTHFUL, "--shots", "0", "--seeds", "1", "--template", "meditron"]
    runs = {
        "sets": [*everything, "--scoring", "letter,cloze"],
        "truthfulqa-meditron": [*other_prompt, "--scoring", "letter"],
    }
    changes = [word for change in asked.changes for word in ("--set", change)]
    parts = []
    if asked.tasks != "all":
        del runs["truthfulqa-meditron"]
    for name, options in runs.items():
        out = asked.work / name
        cpu, wall = _cpu(), time.perf_counter()
        command = ["evaluate", *models, "--data", asked.data, *options, "--out", str(out)]
        _biomistral([*command, "--report", *changes])
        spent = (
            f"{_cpu() - cpu:,.0f} s of CPU time, {time.perf_counter() - wall:,.0f} s of wall time"
        )
        parts.append(f"`{name}`: {spent}.\n\n{_table(out)}")
    text = "\n\n".join(parts) + "\n"
    if asked.result:
        asked.result.write_text(text, encoding="utf-8")
    print(text)


def _trained(work: Path, articles: str | None, data: str, vocabulary: int) -> list[str]:
    """Train a small model on articles; return it and the one it started from."""
    if articles is None:
        sys.exit("name --articles to train a model on, or --models to measure")
    size = f"models.blank.tokenizer.vocabulary_size={vocabulary}"
    _biomistral(
        ["run", str(RECIPE), "--out", str(work), "--only", "model/small", "--set", size],
        ARTICLES=articles,
        BENCHMARK=data,
    )
    folder = work / "pmc-sample" / "model"
    return [f"random={folder / 'blank'}", f"small={folder / 'small'}"]


def _biomistral(arguments: Sequence[str], **environment: str) -> None:
    command = [sys.executable, "-m", "biomistral", *arguments]
    subprocess.run(command, check=True, env={**os.environ, **environment})


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# --- what came out --------------------------------------------------------------------------------


def _table(run: Path) -> str:
    """One line per task, language and scoring: size, time, accuracy of each model beside chance."""
    scores = pq.read_table(run / "scores/scores/scores.parquet").to_pylist()
    found: dict[tuple[Any, ...], dict[Any, Any]] = defaultdict(dict)
    for row in scores:
        if row["metric"] in METRICS and row["task"] != "average":
            key = (row["task"], row["language"], row["scoring"])
            found[key][row["model"], row["metric"]] = row
    models = list(dict.fromkeys(r["model"] for r in scores if r["model_kind"] == "model"))
    seconds = _seconds(run / "units")
    head = ["task", "language", "scoring", "questions", "seeds", "wall s"]
    head += [f"{model}, %" for model in models] + ["chance, %"]
    head += [f"ECE of {models[-1]}, %", "calibrated, %"]
    lines = [head, ["---"] * 3 + ["---:"] * (len(head) - 3)]
    for key, cells in found.items():
        first = cells[models[0], "accuracy"]
        line = [*key, f"{first['num_questions']:,}", str(first["num_seeds"])]
        line.append(f"{seconds.get(key, 0.0):,.0f}")
        line += [_interval(cells[model, "accuracy"]) for model in models]
        line.append(f"{100 * cells['random choice', 'accuracy']['value']:.1f}")
        for metric in ("ece", "ece_temperature"):
            row = cells.get((models[-1], metric))
            line.append(f"{100 * row['value']:.1f}" if row else "-")
        lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _interval(row: dict[str, Any]) -> str:
    return f"{100 * row['value']:.1f} ({100 * row['low']:.1f} to {100 * row['high']:.1f})"


def _seconds(units: Path) -> dict[tuple[str, ...], float]:
    """Wall time by task, language and scoring, all models and seeds together.

    A unit took the time since the one before it; the first, and one after a pause, is left out.
    """
    files: Iterable[Path] = sorted(units.glob("*.parquet"), key=lambda path: path.stat().st_mtime)
    spent: dict[tuple[str, ...], float] = defaultdict(float)
    before = None
    for path in files:
        now = path.stat().st_mtime
        row = (
            pq.read_table(path, columns=["task", "language", "scoring"]).slice(0, 1).to_pylist()[0]
        )
        if before is not None and now - before < 600:
            spent[row["task"], row["language"], row["scoring"]] += now - before
        before = now
    return spent


if __name__ == "__main__":
    main()
