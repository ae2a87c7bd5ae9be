"""Tasks for lm-evaluation-harness (0.4), with the prompts it is to run to the byte.

Each unit of requests becomes one task of three files:

    <task>.yaml    what is shared: the beginning of all prompts is its ``description``
    <task>.jsonl   a line per question: the rest of its prompt, choices, right index, and its names
    questions.py   reads a JSONL beside itself, so that the folder can be moved

Prompts are given whole, not made again from parts by the harness: no example is drawn, no delimiter
put in between, so whatever template made them arrives unchanged. ``lm_eval --include_path DIR
--tasks biomistral`` runs all; the harness then says 0-shot, for the examples are in the prompts.
Letters are compared by ``acc``; cloze, per UTF-8 byte as here, by ``acc_bytes``. The published rule
(three tokens a letter) it does not have. Format: docs/task_guide.md of the harness.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from biomistral import artifacts
from biomistral.errors import InputError
from biomistral.evaluation.units import cut
from biomistral.models.control_tokens import without_marks
from biomistral.records import Request

TAG = "biomistral"
LOADER = "questions.py"
_LOAD = "questions.load"
_METRICS = {"letter": "acc", "cloze": "acc_bytes"}
_LOADER_CODE = '''"""Reads the questions of one task for lm-evaluation-harness; written by biomistral."""

import json
from pathlib import Path

import datasets


def load(file, **_):
    """Return the split ``test`` of the JSONL beside this file."""
    lines = (Path(__file__).parent / file).read_text(encoding="utf-8").splitlines()
    return {"test": datasets.Dataset.from_list([json.loads(line) for line in lines])}
'''


def export_tasks(requests: Sequence[Request], folder: Path) -> list[str]:
    """Write tasks for these requests to a folder, and return their names.

    Files of an earlier export are replaced. Raises ``InputError`` for the published scoring.
    """
    names = []
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LOADER).write_text(_LOADER_CODE, encoding="utf-8")
    # The harness reads the characters of control tokens as these tokens.
    bare = [replace(request, prompt=without_marks(request.prompt)) for request in requests]
    for unit in cut(bare, {}):
        first = unit.requests[0]
        if first.scoring not in _METRICS:
            raise InputError(
                f"scoring {first.scoring}: lm-evaluation-harness has no such rule; export "
                f"{' or '.join(_METRICS)}"
            )
        name = f"{TAG}_{first.task}_{first.language}_{first.shots}shot_{first.seed}"
        name += "" if first.scoring == "letter" else f"_{first.scoring}"
        opening = _opening([request.prompt for request in unit.requests])
        lines = [json.dumps(_line(request, len(opening))) for request in unit.requests]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (folder / f"{name}.yaml").write_text(_yaml(name, first, opening), encoding="utf-8")
        names.append(name)
    return names


def _opening(prompts: Sequence[str]) -> str:
    """What all prompts begin with; nothing if a template of the harness would read it as code."""
    first, last = min(prompts), max(prompts)  # in order, these two differ earliest
    pairs = enumerate(zip(first, last, strict=False))
    # The harness wants some text of each question, so one letter is left of the shortest.
    length = next((i for i, (a, b) in pairs if a != b), len(first) - 1)
    opening = first[:length]
    return "" if any(mark in opening for mark in ("{{", "{%", "{#")) else opening


def _line(request: Request, start: int) -> dict[str, Any]:
    return {
        "prompt": request.prompt[start:],
        "choices": list(request.continuations),
        "gold": request.gold,
        "question_id": request.question_id,
        "task": request.task,
        "language": request.language,
        "shots": request.shots,
        "seed": request.seed,
        "scoring": request.scoring,
        "order": list(request.order),
        "prompt_digest": artifacts.digest_of(request.prompt),
    }


def _yaml(name: str, request: Request, opening: str) -> str:
    """The task's YAML; its one tag of the harness's own is put in as text."""
    of_language, of_task = f"{TAG}_{request.language}", f"{TAG}_{request.task}"
    metric = _METRICS[request.scoring]
    fields = {
        "task": name,
        "tag": [TAG, of_language, of_task],
        "custom_dataset": _LOAD,
        "dataset_kwargs": {"file": f"{name}.jsonl"},
        "test_split": "test",
        "num_fewshot": 0,
        "output_type": "multiple_choice",
        "description": opening,
        "doc_to_text": "prompt",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "target_delimiter": "",
        "fewshot_delimiter": "",
        "metric_list": [{"metric": metric, "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1, "shots": request.shots, "seed": request.seed},
    }
    text = yaml.safe_dump(fields, sort_keys=False, default_flow_style=None, width=10**9)
    return text.replace(f"custom_dataset: {_LOAD}", f"custom_dataset: !function {_LOAD}", 1)
