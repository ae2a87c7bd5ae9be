"""A cut of recipes/pmc-sample.yaml on real articles and real questions, through every step."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from biomistral.artifacts import read_manifest
from biomistral.pipeline import plan, run_steps
from biomistral.recipe import load_recipe
from biomistral.records import Prediction, read_records

REPOSITORY = Path(__file__).resolve().parent.parent
CUT = [
    "pretrain.small.epochs=0.1",
    "pretrain.small-continued.epochs=0.05",
    "models.blank.architecture.num_hidden_layers=1",
    "models.blank.tokenizer.vocabulary_size=1500",
    "corpus.0.held_out_fraction=0.2",
    "evaluate.limit=4",
    "evaluate.seeds=[1]",
]
TASKS = {
    "mmlu_clinical_knowledge",
    "mmlu_medical_genetics",
    "mmlu_anatomy",
    "mmlu_professional_medicine",
    "mmlu_college_biology",
    "mmlu_college_medicine",
    "medqa",
    "medqa_5_options",
    "pubmedqa",
    "medmcqa",
}


@pytest.fixture(scope="module")
def run_folder(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pmc")
    articles = folder / "articles"
    articles.mkdir()
    for path in sorted((real_data / "jats").glob("*.xml"))[::20]:
        shutil.copy(path, articles)
    recipe = load_recipe(
        REPOSITORY / "recipes/pmc-sample.yaml",
        changes=CUT,
        environment={"ARTICLES": str(articles), "BENCHMARK": str(real_data)},
    )
    root = folder / "run"
    for _ in run_steps(plan(recipe, root), root):
        pass
    return root


@pytest.mark.slow
def test_the_ten_english_tasks_are_answered_in_both_scorings(run_folder: Path) -> None:
    rows = list(read_records(run_folder / "predictions/small-8bit/predictions.parquet", Prediction))
    assert {row.task for row in rows} == TASKS
    assert {row.scoring for row in rows} == {"letter", "cloze"}
    assert len(rows) == len(TASKS) * 4 * 2


@pytest.mark.slow
def test_every_article_is_kept_or_dropped_with_a_reason(run_folder: Path) -> None:
    folder = run_folder / "tokens/articles"
    documents = pq.read_table(folder / "documents.parquet").to_pylist()
    manifest = read_manifest(folder)
    assert manifest is not None
    kept = [row for row in documents if not row["dropped"]]
    assert len(kept) == manifest["counts"]["documents_kept"] > 0
    assert len(documents) - len(kept) == sum(manifest["counts"]["dropped"].values())


@pytest.mark.slow
def test_the_report_says_where_worked_examples_were_taken_from(run_folder: Path) -> None:
    page = (run_folder / "report/report/index.html").read_text(encoding="utf-8")
    assert "MedMCQA" in page
    assert "worked examples" in page
