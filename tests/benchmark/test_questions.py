"""The questions artefact, from invented files and from the published ones."""

from __future__ import annotations

import subprocess
import sys

import pytest

from biomistral import artifacts
from biomistral.benchmark import build_requests, find_question_files, load_questions
from biomistral.benchmark.tasks import TASKS
from biomistral.errors import InputError
from biomistral.recipe.settings import BenchmarkSettings, EvaluateSettings
from biomistral.records import Question, Task, read_records


def load(data, out, tasks="all", languages=("en",), **options):
    load_questions(BenchmarkSettings(data=str(data)), tasks, languages, out, **options)
    questions = list(read_records(out / "questions.parquet", Question))
    tasks = {task.name: task for task in read_records(out / "tasks.parquet", Task)}
    return questions, tasks, artifacts.read_manifest(out)["counts"]


def ids(questions, task, language, *splits):
    return [
        q.id for q in questions if (q.task, q.language) == (task, language) and q.split in splits
    ]


def test_the_artefact_holds_questions_tasks_and_numbers(data, tmp_path):
    questions, tasks, counts = load(data, tmp_path / "q", languages=["en", "ar"])
    assert list(tasks) == ["mmlu_anatomy", "medqa", "pubmedqa"]
    assert len(ids(questions, "mmlu_anatomy", "en", "test")) == 8
    assert len(ids(questions, "mmlu_anatomy", "en", "train", "validation")) == 7
    assert ids(questions, "mmlu_anatomy", "ar", "test") == [str(n) for n in range(1, 9)]
    assert counts["tasks"]["medqa"]["en"] == {
        "test_questions": 30,
        "evaluated": 21,
        "examples": 9,
        "equal_choices": 0,
        "left_out": {"kept as worked examples": 9},
    }
    assert counts["absent"] == ["medqa/ar", "pubmedqa/ar", "frenchmedmcqa/en", "frenchmedmcqa/ar"]


def test_notes_say_what_was_left_out_and_why(data, tmp_path):
    _, tasks, _ = load(data, tmp_path / "q", languages=["en", "ar", "fr"], limit=4)
    assert "en: 9 of 30 test questions serve as worked examples" in tasks["medqa"].note
    assert "en: 4 of 30 test questions were evaluated, evenly spaced" in tasks["medqa"].note
    assert "en: 30 test questions were found, 1273 published" in tasks["medqa"].note
    assert "fr: left out, several right answers: 5" in tasks["frenchmedmcqa"].note
    assert "ar: machine translation of" in tasks["mmlu_anatomy"].note
    assert "en, ar: 4 of 8 test questions were evaluated" in tasks["mmlu_anatomy"].note


def test_a_limit_takes_the_same_questions_in_every_language(data, tmp_path):
    questions, _, _ = load(data, tmp_path / "q", ["mmlu_anatomy"], ["ar", "en"], limit=4)
    english = ids(questions, "mmlu_anatomy", "en", "test")
    assert english == ids(questions, "mmlu_anatomy", "ar", "test") == ["2", "4", "6", "8"]


def test_a_language_without_examples_brings_the_english_ones_and_says_so(tmp_path, write_own_task):
    line = {"choices": ["a", "b"], "gold": 1}
    files = {
        "en/test.jsonl": [{"id": "1", "stem": "asked", **line}],
        "en/train.jsonl": [{"id": "1", "stem": "shown", **line}],
        "fr/test.jsonl": [{"id": "1", "stem": "demandé", **line}],
    }
    description = "name: herbs\ntitle: Herbs\nsource: us\nlicence: CC0\nnote: A first try.\n"
    write_own_task(tmp_path / "d" / "herbs", description, files)
    questions, tasks, _ = load(tmp_path / "d", tmp_path / "q", languages=["fr"])
    assert [(q.language, q.split, q.stem) for q in questions] == [
        ("fr", "test", "demandé"),
        ("en", "train", "shown"),
    ]
    assert tasks["herbs"].note == "A first try. fr: worked examples are in English"


def test_the_same_files_give_the_same_bytes_and_a_changed_file_another_fingerprint(
    tmp_path, write_own_task
):
    line = {"choices": ["a", "b"], "gold": 1}
    description = "name: herbs\ntitle: Herbs\nsource: us\nlicence: CC0\n"
    for number in (1, 2, 3):
        lines = [{"id": n, "stem": f"q{n}{number // 3}", **line} for n in range(20)]
        write_own_task(tmp_path / f"d{number}" / "h", description, {"en/test.jsonl": lines})
        load(tmp_path / f"d{number}", tmp_path / f"q{number}" / "questions")
    first, second, changed = (
        artifacts.read_manifest(tmp_path / f"q{number}" / "questions") for number in (1, 2, 3)
    )
    assert first["content_sha256"] == second["content_sha256"]
    assert first["fingerprint"] == second["fingerprint"] != changed["fingerprint"]


def test_the_files_that_will_be_read_are_listed_with_descriptions(data, tmp_path, write_own_task):
    settings = BenchmarkSettings(data=str(data))
    found = find_question_files(settings, ["mmlu_anatomy"], ["ar"])
    assert [path.name for _, path in found] == ["anatomy_dev.csv", "anatomy_test.csv"]
    assert all(path == data / name for name, path in found)
    line = {"id": "1", "stem": "s", "choices": ["a", "b"], "gold": 1}
    description = "name: herbs\ntitle: Herbs\nsource: us\nlicence: CC0\n"
    write_own_task(tmp_path / "herbs", description, {"en/test.jsonl": [line]})
    found = find_question_files(BenchmarkSettings(data=str(tmp_path)), "all", ["en"])
    assert [name for name, _ in found] == ["herbs/en/test.jsonl", "herbs/task.yaml"]


def test_a_broken_file_leaves_no_artefact(tmp_path):
    (tmp_path / "d/mmlu/test").mkdir(parents=True)
    (tmp_path / "d/mmlu/test/anatomy_test.csv").write_text("a,b\n")
    with pytest.raises(InputError, match=r"anatomy_test\.csv, record 1: has 2 columns"):
        load(tmp_path / "d", tmp_path / "q")
    assert not (tmp_path / "q").exists()


def test_importing_the_room_loads_nothing_heavy():
    program = (
        "import sys, biomistral.benchmark\n"
        "print([m for m in ('torch', 'transformers', 'pyarrow', 'pydantic') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert result.stdout.strip() == b"[]"


# --- the published files --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(real_data, tmp_path_factory):
    out = tmp_path_factory.mktemp("published") / "q"
    return load(real_data, out, languages=["en", "ar", "fr", "es", "zh"])


def test_all_published_tasks_have_their_published_sizes(published):
    _, tasks, counts = published
    sizes = {
        (name, code): numbers["test_questions"]
        for name, languages in counts["tasks"].items()
        for code, numbers in languages.items()
    }
    expected = {
        (task.name, files.language): task.num_test_questions
        for task in TASKS.values()
        for files in task.files
    }
    assert sizes == expected
    assert not any("published" in task.note for task in tasks.values() if task.name != "medmcqa")


def test_arabic_is_aligned_with_english_by_id_and_gold(published):
    questions, _, _ = published
    gold = {
        code: {
            (q.task, q.split, q.id): q.gold
            for q in questions
            if q.language == code and q.task.startswith("mmlu_") and q.split == "test"
        }
        for code in ("en", "ar")
    }
    assert len(gold["en"]) == 1089
    assert gold["en"] == gold["ar"]


def test_only_tasks_without_training_files_give_up_test_questions(published):
    _, _, counts = published
    given_up = {
        name
        for name, languages in counts["tasks"].items()
        for numbers in languages.values()
        if numbers["left_out"].get("kept as worked examples")
    }
    assert given_up == {
        "medqa",
        "medqa_5_options",
        "pubmedqa",
        "medmcqa",
        "headqa",
        "medqa_mainland",
    }


def test_published_oddities_survive(published):
    questions, _, counts = published
    by_key = {(q.task, q.language, q.split, q.id): q for q in questions}
    genetics = [q for q in questions if q.task == "mmlu_medical_genetics" and q.language == "en"]
    assert any("1.0/64" in q.choices for q in genetics)
    assert counts["tasks"]["medmcqa"]["en"]["equal_choices"] == 21
    assert counts["tasks"]["frenchmedmcqa"]["fr"]["left_out"] == {"several right answers": 301}
    assert by_key["mmlu_college_medicine", "en", "test", "173"]
    # The Arabic translation has one question, not even a medical one, in dev and in test.
    arabic = counts["tasks"]["mmlu_professional_medicine"]["ar"]
    assert arabic["left_out"] == {"examples that give an answer away": 1}


def test_prompts_of_all_published_tasks_show_no_question_that_is_asked(published):
    questions, _, _ = published
    requests = build_requests(questions, EvaluateSettings(models=["m"], seeds=[1], shots=3))
    asked = sum(q.split == "test" for q in questions)
    assert len(requests) == asked
    for request in requests:
        examples, _, own = request.prompt.rpartition("**Question:** ")
        stem_and_choices = own.removesuffix(" \n **Answer:**(")
        assert stem_and_choices not in examples
        shots = 0 if request.task.startswith("truthfulqa") else 3
        assert request.prompt.count("**Answer:**(") == shots + 1


def test_the_language_of_a_folder_is_in_the_fingerprint_and_the_place_of_the_data_is_not(
    tmp_path, write_own_task
):
    line = {"id": "1", "stem": "s", "choices": ["a", "b"], "gold": 1}
    description = "name: herbs\ntitle: Herbs\nsource: us\nlicence: CC0\n"
    for place, language in (("here", "es"), ("here-fr", "fr"), ("there", "es")):
        files = {f"{language}/test.jsonl": [line]}
        write_own_task(tmp_path / place / "herbs", description, files)

    def fingerprint(place: str, language: str) -> str:
        settings = BenchmarkSettings(data=str(tmp_path / place))
        files = find_question_files(settings, "all", [language])
        return artifacts.fingerprint_of_files(files)

    assert fingerprint("here", "es") == fingerprint("there", "es")
    assert fingerprint("here", "es") != fingerprint("here-fr", "fr")
