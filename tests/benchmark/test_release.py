"""The shape of BioInstructQA, with invented questions."""

from __future__ import annotations

import json

import pytest

from biomistral import artifacts
from biomistral.benchmark import build_requests, load_questions
from biomistral.benchmark.loaders import load
from biomistral.benchmark.parsing import Place
from biomistral.errors import InputError
from biomistral.recipe.settings import BenchmarkSettings, EvaluateSettings
from biomistral.records import Question, read_records


def _record(number, corpus="MMLU_anatomy", **more):
    def shot(seed, place):
        return {
            "context": None,
            "question": f"Shot {seed}-{place} of {number % 2}?",
            "options": {"A": "bark", "B": "moss"},
            "correct_answer_letter": "AB"[place % 2],
        }

    shots = {f"few_shot_samples[{s}]": [shot(s, p) for p in range(3)] for s in (1, 2, 3)}
    return {
        "identifier": f"id-{number}",
        "corpus_name": corpus,
        "task_type": "mcqa",
        "classes": ["A", "B", "C"],
        "context": "A passage.",
        "question": f"Which herb {number}?",
        "options": {"A": "fern", "B": f"reed {number}", "C": "yew"},
        "correct_answer_letter": "C",
        **shots,
        **more,
    }


def _translated(record):
    options = {letter: f"fr {text}" for letter, text in record["options"].items()}
    return {
        **record,
        "question_translated": f"fr {record['question']}",
        "options_translated": options,
        "context_translated": "Un passage.",
    }


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A data folder with the release: anatomy (4 questions) and PubMedQA (2), English and French."""
    root = tmp_path_factory.mktemp("release")
    test = [_record(n) for n in range(4)] + [_record(n, "PubMedQA") for n in (7, 8)]
    train = [_record(n) for n in range(10, 15)]
    files = {
        "BioInstructQA/data/base/overall_test+prompt.json": test,
        "BioInstructQA/data/base/overall_train+prompt.json": train,
        "BioInstructQA/data/langs_processed/French-full.json": [_translated(r) for r in test],
    }
    for name, records in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(json.dumps(records), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def questions(release, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "q"
    tasks = ["mmlu_anatomy", "pubmedqa"]  # the others are looked for in the same files
    load_questions(BenchmarkSettings(data=str(release)), tasks, ["en", "fr"], out, shots_needed=0)
    assert artifacts.read_manifest(out)["counts"]["tasks"]["pubmedqa"]["fr"]["evaluated"] == 2
    return list(read_records(out / "questions.parquet", Question))


def settings(**changes):
    return EvaluateSettings(**{"models": ["m"], "examples": "stored", **changes})


def test_all_languages_share_ids_and_right_answers(questions):
    tests = [q for q in questions if q.split == "test" and q.task == "mmlu_anatomy"]
    by_language = {
        code: [(q.id, q.gold) for q in tests if q.language == code] for code in ("en", "fr")
    }
    assert by_language["en"] == by_language["fr"] == [(f"id-{n}", 2) for n in range(4)]
    assert {q.stem for q in tests if q.language == "fr"} == {
        f"fr Which herb {n}?" for n in range(4)
    }


def test_only_pubmedqa_has_the_context(questions):
    contexts = {(q.task, q.language, q.context) for q in questions if q.split == "test"}
    assert contexts == {
        ("mmlu_anatomy", "en", ""),
        ("mmlu_anatomy", "fr", ""),
        ("pubmedqa", "en", "A passage."),
        ("pubmedqa", "fr", "Un passage."),
    }


def test_stored_examples_are_kept_once_and_shown_in_english_in_every_language(questions):
    stored = [q for q in questions if q.id.startswith("stored-") and q.task == "mmlu_anatomy"]
    assert len(stored) == 2 * 3 * 3  # two kinds of question, three seeds, three examples
    requests = build_requests(questions, settings())
    french = next(r for r in requests if (r.language, r.seed, r.question_id) == ("fr", 2, "id-1"))
    assert french.prompt.count("Shot 2-") == 3
    assert french.prompt.endswith(
        "**Question:** Shot 2-2 of 1? \n (A) bark \n (B) moss \n **Answer:**(A \n "
        "**Question:** fr Which herb 1? \n (A) fr fern \n (B) fr reed 1 \n (C) fr yew"
        " \n **Answer:**("
    )


def test_examples_that_are_drawn_come_from_the_training_file_only(questions):
    asked = [q for q in questions if q.task == "mmlu_anatomy"]
    requests = build_requests(asked, settings(examples="per_task"))
    assert all("Shot" not in r.prompt for r in requests)


def test_the_files_of_the_makers_come_before_the_release(release, data, tmp_path):
    for name, folder in (("a", release), ("b", data)):
        (tmp_path / name).symlink_to(folder)
    out = load_questions(
        BenchmarkSettings(data=str(tmp_path)), ["mmlu_anatomy"], ["en", "fr"], tmp_path / "q"
    )
    found = read_records(out / "questions.parquet", Question)
    stems = {q.language: q.stem for q in found if q.split == "test"}
    assert stems["en"].startswith("In ")
    assert stems["fr"].startswith("fr Which")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"correct_answer_letter": "D"}, "the answer is 'D'"),
        ({"options": None}, "record 1: is no JSON object"),
        ({"corpus_name": None}, "corpus_name is None"),
    ],
)
def test_a_broken_record_is_named(changes, message):
    text = json.dumps([_record(1, **changes)])
    place = Place("t.json", "mmlu_anatomy", "en", "test")
    with pytest.raises(InputError, match=message):
        load("bioinstructqa", text.encode(), place)


def test_a_test_file_without_the_task_is_refused_and_a_training_file_is_not():
    text = json.dumps([_record(1)]).encode()
    with pytest.raises(InputError, match="holds no question"):
        load("bioinstructqa", text, Place("t.json", "medqa", "en", "test"))
    assert load("bioinstructqa", text, Place("t.json", "medqa", "en", "train")).questions == []
