"""Invented questions, and a data folder with one small file of every published format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from biomistral.records import Question


def _lines(records):
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _mmlu(prefix, count):
    return "".join(
        f'"{prefix} {n}, which\nherb?",bark {n},moss {n},fern {n},reed {n},{"ABCD"[n % 4]}\n'
        for n in range(1, count + 1)
    )


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """Read only. Anatomy in English (8 test, 4 dev, 3 val) and Arabic (8, 4); others English."""
    root = tmp_path_factory.mktemp("data")
    files = {
        "mmlu/test/anatomy_test.csv": _mmlu("In test", 8),
        "mmlu/dev/anatomy_dev.csv": _mmlu("In dev", 4),
        "mmlu/val/anatomy_val.csv": _mmlu("In val", 3),
        "MMLUArabic/test/anatomy_test.csv": _mmlu("اختبار", 8),
        "MMLUArabic/dev/anatomy_dev.csv": _mmlu("تطوير", 4),
        "medqa/4_options_phrases_no_exclude_test.jsonl": _lines(
            {
                "question": f"Case {n}: next step?",
                "options": {"A": "wait", "B": "bark tea", "C": "moss", "D": f"reed {n}"},
                "answer_idx": "ABCD"[n % 4],
            }
            for n in range(30)
        ),
        "pubmedqa/test_set.json": json.dumps(
            {
                str(9000 + n): {
                    "QUESTION": f"Does bark {n} help?",
                    "CONTEXTS": [f"We asked {n} villagers.", "Half of them slept."],
                    "final_decision": ("yes", "no", "maybe")[n % 3],
                }
                for n in range(12)
            }
        ),
        "frenchmedmcqa/test.json": json.dumps(
            [
                {
                    "id": f"t{n}",
                    "question": f"Quelle écorce {n} ?",
                    "answers": {"a": "saule", "b": "orme", "c": "if", "d": "houx", "e": "buis"},
                    "correct_answers": ["b"] if n % 2 else ["a", "c"],
                }
                for n in range(10)
            ]
        ),
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


@pytest.fixture(scope="session")
def write_own_task():
    """Return a function that writes a task folder from its description and lines by file name."""

    def write(folder: Path, description: str, files: dict[str, list[dict]]) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "task.yaml").write_text(description, encoding="utf-8")
        for name, records in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(_lines(records), encoding="utf-8")
        return folder

    return write


@pytest.fixture(scope="session")
def make_question():
    """Return a function that makes one invented question; keywords replace its fields."""

    def make(number: int = 1, **changes) -> Question:
        values = {
            "id": str(number),
            "task": "herbs",
            "language": "en",
            "split": "test",
            "stem": f"Which herb cures fever {number}?",
            "choices": ("bark", "moss", "reed"),
            "gold": number % 3,
        }
        return Question(**{**values, **changes})

    return make
