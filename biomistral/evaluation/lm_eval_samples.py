"""Answers of lm-evaluation-harness, read in as predictions.

``lm_eval --log_samples`` writes ``samples_<task>_<time>.jsonl``, a line per question: ``doc`` (the
question as its task has it), ``target``, ``arguments`` (prompt and choice, per choice) and ``resps``
(log-probability of each choice, as text). The docs of our own export carry the names of task,
language, shots and seed; for other tasks the caller gives them, and a question is called by its
``doc_id``. Nothing is read from the names of files.

Log-probabilities of the harness are sums; those of cloze scoring are divided by the bytes of the
choice, as ours are. Format: ``EvaluationTracker.save_results_samples`` of the harness, 0.4.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from biomistral import artifacts
from biomistral.artifacts import Origin
from biomistral.errors import InputError
from biomistral.evaluation.columns import PREDICTIONS
from biomistral.records import Prediction, write_records

_EXPORTED = ("question_id", "task", "language", "shots", "seed", "scoring", "gold")


@dataclass(frozen=True)
class Names:
    """What the questions of a file that we did not export are of."""

    task: str | None
    language: str = "en"
    shots: int = 0


def import_samples(files: Sequence[Path], out: Path, *, name: str, names: Names) -> Path:
    """Write the predictions of the model ``name`` from sample files to ``out``.

    Raises ``InputError`` if a file is no such file, has another kind of task, or two answers to one
    question.
    """
    origin = Origin(
        kind="predictions",
        name=name,
        settings={"name": name, "from": "lm-evaluation-harness", **asdict(names)},
        inputs={"samples": artifacts.fingerprint_of_files(files)},
    )
    seen: dict[tuple[Any, ...], Path] = {}
    records = []
    for file in files:
        for record in _read(file, name, names):
            cell = (record.task, record.language, record.shots, record.seed, record.scoring)
            key = (*cell, record.question_id)
            if key in seen:
                raise InputError(
                    f"{file}: question {record.question_id!r} of {record.task} "
                    f"({record.language}, seed {record.seed}) is answered in {seen[key]}, too; "
                    "name each run once"
                )
            seen[key] = file
            records.append(record)
    with artifacts.create(out, origin) as draft:
        draft.counts["predictions"] = write_records(draft.folder / PREDICTIONS, records, Prediction)
    return out


def _read(file: Path, name: str, names: Names) -> Iterator[Prediction]:
    try:
        lines = file.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read ({error})") from None
    for number, line in enumerate(lines, 1):
        try:
            yield _prediction(json.loads(line), name, names)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise InputError(
                f"{file}, line {number}: is no multiple-choice sample of lm-evaluation-harness "
                f"({type(error).__name__}: {error}); name the samples_*.jsonl files that lm_eval "
                "--log_samples wrote"
            ) from None


def _prediction(sample: dict[str, Any], name: str, names: Names) -> Prediction:
    doc = sample["doc"]
    sums = [float(response[0][0]) for response in sample["resps"]]
    arguments = list(sample["arguments"].values())
    choices = [str(argument["arg_1"]) for argument in arguments]
    if not len(sums) == len(choices) >= 2:
        raise ValueError(f"{len(sums)} answers to {len(choices)} choices")
    if all(key in doc for key in (*_EXPORTED, "prompt_digest")):
        return _of_own_export(sample, name, sums, choices)
    if names.task is None:
        raise InputError(
            "samples of a task that biomistral did not export: say which task it is with --task "
            "(and --language, --shots)"
        )
    return Prediction(
        question_id=str(sample["doc_id"]),
        task=names.task,
        language=names.language,
        model=name,
        shots=names.shots,
        seed=1,
        scoring="letter",
        logprobs=tuple(sums),
        gold=_gold(sample["target"], choices),
    )


def _of_own_export(
    sample: dict[str, Any], name: str, sums: list[float], choices: list[str]
) -> Prediction:
    doc = sample["doc"]
    prompt = next(iter(sample["arguments"].values()))["arg_0"]
    if artifacts.digest_of(prompt) != doc["prompt_digest"]:
        raise InputError(
            f"question {doc['question_id']!r} of {doc['task']} ({doc['language']}): its prompt is "
            "not the one exported; run lm_eval without a chat template, system instruction or "
            "--num_fewshot"
        )
    if doc["scoring"] == "cloze":
        sums = [total / len(text.encode()) for total, text in zip(sums, choices, strict=True)]
    values = {key: doc[key] for key in _EXPORTED}
    order = tuple(doc.get("order") or ())
    return Prediction(**values, model=name, logprobs=tuple(sums), order=order)


def _gold(target: Any, choices: Sequence[str]) -> int:
    """The index of the right choice, given as an index or as the choice itself."""
    text = str(target).strip()
    if text.isdigit() and int(text) < len(choices):
        return int(text)
    return [choice.strip() for choice in choices].index(text)
