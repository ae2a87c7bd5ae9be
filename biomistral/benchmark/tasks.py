"""The published tasks: what they are called in tables, and where their files lie.

A table, nothing else. The first ten tasks are those of the BioMistral paper (arXiv 2402.10373),
under its titles and with its test sizes; the others are real (not translated) tasks of other
languages. Knows nothing about how a file is read or whether it is there.

A pattern is matched, in lower case, against ``/`` plus the file's path below the data folder; its
``*`` spans folders. Of several patterns the first that matches counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Format = Literal[
    "mmlu", "medqa", "medmcqa", "pubmedqa", "frenchmedmcqa", "xmedbench", "truthfulqa",
    "bioinstructqa", "mmlu_hub", "medmcqa_hub", "pubmedqa_hub", "openlifescience",
    "truthfulqa_hub", "jsonl", "csv", "parquet",
]  # fmt: skip

# Of the worked examples of a language that has none of its own; published runs always used it.
FALLBACK_LANGUAGE = "en"


# Tasks that are asked without worked examples, whatever the settings say.
TRUTHFULQA = {
    "truthfulqa": "",
    "truthfulqa_health": "Health",
    "truthfulqa_nutrition": "Nutrition",
    "truthfulqa_psychology": "Psychology",
    "truthfulqa_science": "Science",
}
ZERO_SHOT = frozenset(TRUTHFULQA)


@dataclass(frozen=True, slots=True)
class FilePatterns:
    """Where the files of one task in one language are looked for."""

    language: str
    format: Format
    test: tuple[str, ...]
    validation: tuple[str, ...] = ()
    train: tuple[str, ...] = ()
    note: str = ""  # what a reader must know of this language's questions


@dataclass(frozen=True, slots=True)
class PublishedTask:
    """One published task."""

    name: str
    title: str  # as in the tables of the paper
    num_test_questions: int  # of the published test set, in each of its languages
    source: str
    licence: str
    files: tuple[FilePatterns, ...]
    group: str = "medical"


# Folders whose English MMLU files are told apart from translations with the same file names.
_ENGLISH_MMLU = ("*/mmlu_medical/", "*/mmlu/", "*/mmlu/data/", "/data/")
_ARABIC_MMLU = ("*arabic*/", "*/mmlu_ar/")


def _mmlu(name: str, title: str, num_test_questions: int) -> PublishedTask:
    def patterns(folders: tuple[str, ...], split: str) -> tuple[str, ...]:
        return tuple(f"{folder}{split}/{name}_{split}.csv" for folder in folders)

    return PublishedTask(
        name=f"mmlu_{name}",
        title=title,
        num_test_questions=num_test_questions,
        source="https://github.com/hendrycks/test",
        licence="MIT",
        files=(
            FilePatterns(
                "en",
                "mmlu",
                test=patterns(_ENGLISH_MMLU, "test"),
                validation=patterns(_ENGLISH_MMLU, "val"),
                train=patterns(_ENGLISH_MMLU, "dev"),
            ),
            FilePatterns(
                "ar",
                "mmlu",
                test=patterns(_ARABIC_MMLU, "test"),
                train=patterns(_ARABIC_MMLU, "dev"),
                note="machine translation of https://github.com/FreedomIntelligence/AceGPT "
                "(Apache-2.0)",
            ),
        ),
    )


def _truthfulqa(name: str, num_test_questions: int) -> PublishedTask:
    category = TRUTHFULQA[name]
    return PublishedTask(
        name=name,
        title=f"TruthfulQA {category}".strip(),
        num_test_questions=num_test_questions,
        source="https://github.com/sylinrl/TruthfulQA",
        licence="Apache-2.0",
        group="truthfulness",
        files=(
            FilePatterns(
                "en",
                "truthfulqa",
                test=("*/truthfulqa.csv",),
                note="without worked examples; one true answer among false ones, in an order that "
                "is drawn once",
            ),
        ),
    )


TASKS: dict[str, PublishedTask] = {
    task.name: task
    for task in (
        _mmlu("clinical_knowledge", "Clinical KG", 265),
        _mmlu("medical_genetics", "Medical Genetics", 100),
        _mmlu("anatomy", "Anatomy", 135),
        _mmlu("professional_medicine", "Pro Medicine", 272),
        _mmlu("college_biology", "College Biology", 144),
        _mmlu("college_medicine", "College Medicine", 173),
        PublishedTask(
            name="medqa",
            title="MedQA",
            num_test_questions=1273,
            source="https://github.com/jind11/MedQA",
            licence="MIT",
            files=(
                FilePatterns(
                    "en",
                    "medqa",
                    test=(
                        "*/4_options_phrases_no_exclude_test.jsonl",
                        "*/us/4_options/phrases_no_exclude_test.jsonl",
                    ),
                    validation=("*/us/4_options/phrases_no_exclude_dev.jsonl",),
                    train=("*/us/4_options/phrases_no_exclude_train.jsonl",),
                ),
            ),
        ),
        PublishedTask(
            name="medqa_5_options",
            title="MedQA 5 opts",
            num_test_questions=1273,
            source="https://github.com/jind11/MedQA",
            licence="MIT",
            files=(
                FilePatterns(
                    "en",
                    "medqa",
                    test=("*/5_options_test.jsonl", "*/questions/us/test.jsonl"),
                    validation=("*/questions/us/dev.jsonl",),
                    train=("*/questions/us/train.jsonl",),
                ),
            ),
        ),
        PublishedTask(
            name="pubmedqa",
            title="PubMedQA",
            num_test_questions=500,
            source="https://github.com/pubmedqa/pubmedqa",
            licence="MIT",
            files=(
                FilePatterns(
                    "en",
                    "pubmedqa",
                    test=("*/pubmedqa*/test_set.json",),
                    validation=("*/pqal_fold0/dev_set.json",),
                    # All 1,000 labelled questions; the questions of the test set are taken out.
                    train=("*/pqal_fold0/train_set.json", "*/ori_pqal.json"),
                ),
            ),
        ),
        PublishedTask(
            name="medmcqa",
            title="MedMCQA",
            num_test_questions=4183,
            source="https://github.com/medmcqa/medmcqa",
            licence="MIT",
            files=(
                FilePatterns(
                    "en",
                    "medmcqa",
                    test=("*/medmcqa*/dev.json",),
                    train=("*/medmcqa*/train.json",),
                    note="the published validation set, as in the paper: its test answers are not "
                    "public",
                ),
            ),
        ),
        PublishedTask(
            name="frenchmedmcqa",
            title="FrenchMedMCQA",
            num_test_questions=321,
            source="https://github.com/qanastek/FrenchMedMCQA",
            licence="Apache-2.0",
            files=(
                FilePatterns(
                    "fr",
                    "frenchmedmcqa",
                    test=("*/frenchmedmcqa*/test.json",),
                    validation=("*/frenchmedmcqa*/dev.json",),
                    train=("*/frenchmedmcqa*/train.json",),
                    note="only questions with one right answer",
                ),
            ),
        ),
        PublishedTask(
            name="headqa",
            title="HEAD-QA",
            num_test_questions=2742,
            source="https://github.com/FreedomIntelligence/Apollo (of aghie/head-qa)",
            licence="MIT",
            files=(
                FilePatterns(
                    "es", "xmedbench", test=("*/xmedbench*/es.json", "*/metadata/test/es.json")
                ),
            ),
        ),
        PublishedTask(
            name="medqa_mainland",
            title="MedQA Mainland",
            num_test_questions=3426,
            source="https://github.com/FreedomIntelligence/Apollo (of jind11/MedQA)",
            licence="MIT",
            files=(FilePatterns("zh", "xmedbench", test=("*/zh_medqa-mcmle.json",)),),
        ),
        _truthfulqa("truthfulqa", 817),
        _truthfulqa("truthfulqa_health", 55),
        _truthfulqa("truthfulqa_nutrition", 16),
        _truthfulqa("truthfulqa_psychology", 19),
        _truthfulqa("truthfulqa_science", 9),
    )
}
