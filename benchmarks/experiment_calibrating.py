"""What calibrating in training does to accuracy and calibration, on the miniature.

    biomistral miniature runs/miniature-world
    biomistral run recipes/miniature.yaml --only model/medical
    python benchmarks/experiment_calibrating.py runs/miniature/model/medical runs/miniature-world

Fine-tunes one model (LoRA, training questions, answers as text) without and with each setting, with
several seeds, and measures every model on the test questions in English. Prints a table in Markdown:
mean and standard deviation over seeds, in percent.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import yaml

from biomistral.pipeline import plan, run_steps
from biomistral.recipe import parse_recipe
from biomistral.records import Score, read_records

VARIANTS = {
    "none": {},
    "jeffreys 0.1": {"jeffreys_weight": 0.1},
    "jeffreys 1": {"jeffreys_weight": 1.0},
    "entropy 0.1": {"entropy_weight": 0.1},
    "entropy 0.5": {"entropy_weight": 0.5},
    "smoothing 0.1": {"answer_smoothing": 0.1},
}
METRICS = ("accuracy", "ece", "negative_log_likelihood")


def recipe_of(model: Path, world: Path, seeds: int, epochs: float) -> str:
    entries = [
        {
            "name": f"{label.replace(' ', '-')}-{seed}",
            "model": "medical",
            "questions": "all",
            "languages": ["en", "fr", "es", "pt", "de", "ru", "zh", "ar"],
            "answer": "text",
            "epochs": epochs,
            "learning_rate": 2e-3,
            "sequence_length": 256,
            "precision": "float32",
            "seed": seed,
            **settings,
        }
        for label, settings in VARIANTS.items()
        for seed in range(1, seeds + 1)
    ]
    evaluate = {
        "models": ["medical", *(entry["name"] for entry in entries)],
        "languages": ["en"],
        "shots": 3,
        "seeds": [1, 2, 3],
        "scoring": "cloze",
        "precision": "float32",
    }
    return yaml.safe_dump(
        {
            "name": "calibrating",
            "models": {"medical": {"path": str(model.absolute())}},
            "sft": entries,
            "benchmark": {"data": str(world.absolute() / "benchmark")},
            "evaluate": evaluate,
        },
        sort_keys=False,
    )


def cell(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("world", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=10)
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    root = given.out or Path(tempfile.mkdtemp(prefix="calibrating-"))
    recipe = parse_recipe(recipe_of(given.model, given.world, given.seeds, given.epochs))
    for outcome in run_steps(plan(recipe, root), root):
        print(f"{outcome.step.key}  {outcome.seconds:.1f} s", flush=True)
    scores = {
        (row.model, row.group, row.metric): 100 * row.value
        for row in read_records(root / "scores/scores/scores.parquet", Score)
        if row.task == "average" and row.metric in METRICS
    }
    print(
        "\n| sft | accuracy | ECE | nats | accuracy, general | ECE, general |\n|---|---|---|---|---|---|"
    )
    rows = {"(before sft)": ["medical"]} | {
        label: [f"{label.replace(' ', '-')}-{seed}" for seed in range(1, given.seeds + 1)]
        for label in VARIANTS
    }
    for label, models in rows.items():
        columns = [("medical", m) for m in METRICS] + [("general", m) for m in METRICS[:2]]
        cells = [
            cell(
                [
                    scores[model, group, metric] / (100 if metric.startswith("neg") else 1)
                    for model in models
                ]
            )
            if not metric.startswith("neg")
            else f"{statistics.fmean(scores[model, group, metric] / 100 for model in models):.3f}"
            for group, metric in columns
        ]
        print(f"| {label} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
