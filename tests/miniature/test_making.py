from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from biomistral import artifacts
from biomistral.corpus.documents import Dropped
from biomistral.corpus.sources import list_shards, read_shard
from biomistral.errors import InputError
from biomistral.languages import LANGUAGES
from biomistral.miniature import make_miniature
from biomistral.miniature.quizzes import questions, task_titles
from biomistral.miniature.world import make_world
from biomistral.pipeline.making import question_files
from biomistral.recipe.settings import BenchmarkSettings, CorpusSettings, EvaluateSettings
from biomistral.records import Question, read_records


def _judge(settings: CorpusSettings) -> tuple[Counter[str], Counter[str | None]]:
    """Reasons why documents were dropped, and languages of those kept."""
    reasons: Counter[str] = Counter()
    kept: Counter[str | None] = Counter()
    texts: set[str] = set()
    for item in (item for shard in list_shards(settings) for item in read_shard(shard, settings)):
        if isinstance(item, Dropped):
            reasons[item.reason] += 1
        elif item.text in texts:
            reasons["duplicate"] += 1
        else:
            kept[item.language] += 1
            texts.add(item.text)
    return reasons, kept


def test_the_same_seed_gives_the_same_bytes_in_another_process(
    miniature_world: Path, tmp_path: Path
) -> None:
    program = (
        "import sys; from pathlib import Path; from biomistral.miniature import make_miniature; "
        "make_miniature(Path(sys.argv[1]))"
    )
    environment = {"PYTHONHASHSEED": "99", "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", program, tmp_path / "again"], check=True, env=environment)
    digest = artifacts.content_digest(miniature_world)
    assert artifacts.content_digest(tmp_path / "again") == digest


def test_a_world_that_is_there_is_kept_and_another_seed_replaces_it(tmp_path: Path) -> None:
    out = make_miniature(tmp_path / "world", seed=1)
    made = (out / "manifest.json").stat().st_mtime_ns
    make_miniature(out, seed=1)
    assert (out / "manifest.json").stat().st_mtime_ns == made
    before = artifacts.content_digest(out)
    make_miniature(out, seed=2)
    assert artifacts.content_digest(out) != before


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("one")
    with pytest.raises(InputError, match="was not made by biomistral"):
        make_miniature(tmp_path)


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_wrong_with_articles_is_found_and_the_rest_is_kept(
    language: str, miniature_world: Path
) -> None:
    folder = miniature_world / "articles" / language
    settings = CorpusSettings(articles=[f"{folder}/*.xml"], minimum_words=0)
    reasons, kept = _judge(settings)
    assert reasons == {
        "licence_not_allowed": 1,
        "licence_unclear": 1,
        "duplicate": 1,
        "not_well_formed": 1,
    }
    assert kept.keys() == {language}
    assert kept.total() == len(list(folder.iterdir())) - 4


def test_general_texts_are_kept_in_their_language(miniature_world: Path) -> None:
    settings = CorpusSettings(texts=[f"{miniature_world}/general/*.jsonl"], minimum_words=0)
    _, kept = _judge(settings)
    assert kept.keys() == set(LANGUAGES)
    assert kept["en"] == max(kept.values())


def test_the_benchmark_is_read_back_as_it_was_invented(
    miniature_world: Path, tmp_path: Path
) -> None:
    benchmark = BenchmarkSettings(data=str(miniature_world / "benchmark"))
    settings = EvaluateSettings(models=["a"], languages=["en", "ar"], shots=1, seeds=[1])
    assert len(question_files(benchmark, settings)()) == len(task_titles()) * (1 + 2 * 3)
    from biomistral.benchmark import load_questions

    load_questions(benchmark, "all", ["en", "ar"], tmp_path / "questions", shots_needed=1)
    read = set(read_records(tmp_path / "questions/questions.parquet", Question))
    invented = make_world(7)
    for task in task_titles():
        for language in ("en", "ar"):
            asked = {q for q in questions(invented, task, language) if q.split == "test"}
            assert asked == {
                q for q in read if (q.task, q.language, q.split) == (task, language, "test")
            }


def test_the_manifest_counts_what_is_there(miniature_world: Path) -> None:
    manifest = artifacts.read_manifest(miniature_world)
    assert manifest is not None
    counts = manifest["counts"]
    assert counts["articles"] == len(list(miniature_world.glob("articles/*/*.xml")))
    lines = [len(p.read_text("utf-8").splitlines()) for p in miniature_world.glob("general/*")]
    assert counts["general_documents"] == sum(lines)
    files = miniature_world.glob("benchmark/*/*/*.jsonl")
    assert counts["questions"] == sum(len(p.read_text("utf-8").splitlines()) for p in files)
