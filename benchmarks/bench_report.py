"""How long a report takes to make and to open, for a run with very many predictions.

    python benchmarks/bench_report.py WORK [--predictions 200000] [--models 12] [--seeds 3]
        [--repeats 5] [--result FILE.md]

Invents questions (ten tasks, eight languages, some 300 characters each) and answers, scores them, and
makes the report in a process of its own (processor time is what is told). Then opens its two pages from
the disk in headless Chromium, a new process with an empty profile each time: milliseconds from the start
of the navigation until the tables are laid out, and until the first twenty questions are shown.
"""

from __future__ import annotations

import argparse
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from biomistral.evaluation import score
from biomistral.languages import LANGUAGES
from biomistral.records import Task, write_records

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SWITCHES = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
TASKS = [Task(f"task{n}", f"Task {n}", "medical", "invented", "CC0-1.0") for n in range(10)]
CHOICES = 4
# Said to the page's root when all is laid out; the benchmark reads it from the dumped document.
PROBE = """<script>addEventListener("load", () => { document.body.offsetHeight;
document.documentElement.dataset.ready = performance.now(); });</script></body>"""


def main() -> int:
    options = read_options()
    shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True)
    cells = len(TASKS) * len(LANGUAGES)
    per_cell = max(1, round(options.predictions / options.models / options.seeds / cells))
    write_questions(options.work / "questions", per_cell)
    models = [f"model-{n}" for n in range(options.models)]
    for n, model in enumerate(models):
        write_predictions(options.work / model, model, options.seeds, n)
    score(
        {model: options.work / model for model in models},
        options.work / "questions",
        options.work / "scores",
        seed=1,
        ensembles=[],
    )
    seconds, megabytes = make_report(options.work)
    folder = options.work / "report"
    page = folder / "index.html"
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", PROBE), encoding="utf-8")
    predictions = per_cell * cells * options.models * options.seeds
    data = sum(path.stat().st_size for path in (folder / "questions").iterdir())
    browser = folder / "questions.html"
    index = (folder / "questions/index.js").stat().st_size
    lines = [
        f"{predictions:,} predictions: {options.models} models, {options.seeds} seeds.",
        "",
        f"Made in {seconds:.1f} s of processor time, {megabytes:.0f} MB of memory at most.",
        "",
        "| page | ready after, ms (median, least, most) | bytes at once | bytes in all |",
        "|---|---:|---:|---:|",
        f"| index.html | {times(page, options.repeats)} | {page.stat().st_size:,} | |",
        f"| questions.html | {times(browser, options.repeats)} | {index:,} | {data:,} |",
    ]
    text = "\n".join(lines)
    print(text)
    if options.result:
        options.result.write_text(text + "\n", encoding="utf-8")
    return 0


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--predictions", type=int, default=200_000)
    parser.add_argument("--models", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--result", type=Path)
    return parser.parse_args()


def write_questions(folder: Path, per_cell: int) -> None:
    folder.mkdir()
    rows = [
        {
            "id": f"{task.name}-{number}",
            "task": task.name,
            "language": language,
            "split": "test",
            "stem": f"Question {number} of {task.title}: " + "which of these is it, and why? " * 6,
            "choices": [f"choice {letter}, which is not short" for letter in "abcd"],
            "gold": number % CHOICES,
            "context": "",
            "stored_shots": [],
        }
        for language in LANGUAGES
        for task in TASKS
        for number in range(per_cell)
    ]
    kinds = {"stored_shots": pa.list_(pa.string())}
    table = pa.Table.from_pylist(rows)
    for name, kind in kinds.items():
        place = table.column_names.index(name)
        table = table.set_column(place, name, table[name].cast(kind))
    pq.write_table(table, folder / "questions.parquet")
    write_records(folder / "tasks.parquet", TASKS, Task)


def write_predictions(folder: Path, model: str, seeds: int, seed: int) -> None:
    """Answers by chance, the right choice a little more probable."""
    folder.mkdir()
    drawn = np.random.default_rng(seed)
    questions = pq.read_table(folder.parent / "questions/questions.parquet")
    count = len(questions)
    logits = drawn.normal(size=(seeds * count, CHOICES))
    gold = np.tile(questions["gold"].to_numpy(), seeds)
    logits[np.arange(len(gold)), gold] += 1 + seed / 10
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    repeated = {name: pa.concat_arrays(questions[name].chunks * seeds) for name in
                ("id", "task", "language")}  # fmt: skip
    table = pa.table(
        {
            "question_id": repeated["id"],
            "task": repeated["task"],
            "language": repeated["language"],
            "model": [model] * len(gold),
            "shots": np.full(len(gold), 3),
            "seed": np.repeat(np.arange(1, seeds + 1), count),
            "scoring": ["letter"] * len(gold),
            "logprobs": pa.FixedSizeListArray.from_arrays(pa.array(logprobs.ravel()), CHOICES).cast(
                pa.list_(pa.float64())
            ),
            "gold": gold,
        }
    )
    pq.write_table(table, folder / "predictions.parquet")


def make_report(work: Path) -> tuple[float, float]:
    """Make the report in another process; processor seconds and megabytes at most."""
    code = (
        "import sys; from pathlib import Path; from biomistral.reporting import report\n"
        "work = Path(sys.argv[1])\n"
        "names = sorted(p.name for p in work.glob('model-*'))\n"
        "report(work / 'report', title='very many predictions', scores=work / 'scores',"
        " questions=work / 'questions', models={}, corpora={},"
        " predictions={name: work / name for name in names})\n"
    )
    subprocess.run([sys.executable, "-c", code, str(work)], check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def times(page: Path, repeats: int) -> str:
    """Milliseconds until a page is ready: median, least and most."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        return "no Chromium here"
    found = [opened(program, page) for _ in range(repeats)]
    return f"{statistics.median(found):.0f}, {min(found):.0f}, {max(found):.0f}"


def opened(program: str, page: Path) -> float:
    with tempfile.TemporaryDirectory() as profile:
        command = [program, *SWITCHES, f"--user-data-dir={profile}", "--dump-dom", page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    ready = re.search(r'<html[^>]*data-ready="([0-9.]+)"', done.stdout)
    if ready is None:
        raise SystemExit(f"{page.name} was never ready")
    return float(ready[1])


if __name__ == "__main__":
    sys.exit(main())
