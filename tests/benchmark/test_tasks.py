"""The table of published tasks."""

from __future__ import annotations

from biomistral.benchmark.loaders import LOADERS
from biomistral.benchmark.tasks import TASKS
from biomistral.languages import LANGUAGES

PAPER = {
    "mmlu_clinical_knowledge": ("Clinical KG", 265),
    "mmlu_medical_genetics": ("Medical Genetics", 100),
    "mmlu_anatomy": ("Anatomy", 135),
    "mmlu_professional_medicine": ("Pro Medicine", 272),
    "mmlu_college_biology": ("College Biology", 144),
    "mmlu_college_medicine": ("College Medicine", 173),
    "medqa": ("MedQA", 1273),
    "medqa_5_options": ("MedQA 5 opts", 1273),
    "pubmedqa": ("PubMedQA", 500),
    "medmcqa": ("MedMCQA", 4183),
}


def test_the_first_ten_tasks_are_those_of_the_paper_in_its_order():
    first = list(TASKS.values())[:10]
    assert {task.name: (task.title, task.num_test_questions) for task in first} == PAPER
    assert [task.name for task in first] == list(PAPER)
    assert all("en" in {files.language for files in task.files} for task in first)


def test_every_row_names_a_known_language_and_format_and_patterns_in_lower_case():
    for task in TASKS.values():
        for files in task.files:
            assert files.language in LANGUAGES
            assert files.format in LOADERS
            patterns = files.test + files.validation + files.train
            assert files.test
            assert all(pattern == pattern.lower() for pattern in patterns)


def test_arabic_is_a_language_of_the_six_mmlu_tasks_only():
    with_arabic = {n for n, t in TASKS.items() if any(f.language == "ar" for f in t.files)}
    assert with_arabic == {name for name in PAPER if name.startswith("mmlu_")}
