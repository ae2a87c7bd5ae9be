"""Write the miniature world to a folder: general texts, articles and a benchmark.

    general/<language>.jsonl                 general-language documents, one a line
    articles/<language>/<id>.xml             JATS articles; some may not be used, some are broken
    benchmark/<task>/task.yaml               what the task is
    benchmark/<task>/<language>/<split>.jsonl  its questions

The same seed gives the same bytes. Everything in it is invented; nothing in it is medicine.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path

import yaml

from biomistral import artifacts
from biomistral.artifacts import Origin
from biomistral.languages import LANGUAGES
from biomistral.miniature import jats
from biomistral.miniature.quizzes import questions, task_titles
from biomistral.miniature.texts import Article, general_documents, medical_articles
from biomistral.miniature.world import World, make_world
from biomistral.records import Question

# How often each language tells everything. English dominates, as it does in PubMed Central.
ENGLISH_ROUNDS, OTHER_ROUNDS = 12, 4
VERSION = 1  # raised when the code below writes other bytes


def make_miniature(out: Path, *, seed: int = 7) -> Path:
    """Make the miniature at ``out``; one of the same seed and version that is there is kept.

    Raises ``InputError`` if ``out`` is a folder that was not made by this package.
    """
    origin = Origin("miniature", out.name, {"seed": seed}, step_version=VERSION)
    manifest = artifacts.read_manifest(out)
    if manifest is not None and manifest["fingerprint"] == origin.fingerprint:
        return out
    world = make_world(seed)
    with artifacts.create(out, origin) as draft:
        draft.counts["general_documents"] = _write_general(world, draft.folder / "general")
        draft.counts["articles"] = _write_articles(world, draft.folder / "articles")
        draft.counts["questions"] = _write_benchmark(world, draft.folder / "benchmark")
    return out


def _rounds(language: str) -> int:
    return ENGLISH_ROUNDS if language == "en" else OTHER_ROUNDS


def _write_general(world: World, folder: Path) -> int:
    folder.mkdir()
    total = 0
    for language in LANGUAGES:
        texts = general_documents(world, language, rounds=_rounds(language))
        lines: list[dict[str, object]] = [
            {"id": f"general-{language}-{index:04}", "language": language, "text": text}
            for index, text in enumerate(texts)
        ]
        _write_jsonl(folder / f"{language}.jsonl", lines)
        total += len(lines)
    return total


def _write_articles(world: World, folder: Path) -> int:
    """Write usable articles of every language, and a few that a corpus must not take."""
    total = 0
    for language in LANGUAGES:
        articles = medical_articles(world, language, rounds=_rounds(language))
        rng = random.Random(f"{world.seed} licences {language}")
        place = folder / language
        place.mkdir(parents=True)
        for article in articles:
            licence = rng.choice(["CC-BY", "CC-BY", "CC-BY", "CC0", "CC-BY-SA"])
            _write(place, article.id, jats.render(article, licence))
        total += len(articles) + _write_unusable(place, articles)
    return total


def _write_unusable(folder: Path, articles: list[Article]) -> int:
    """Four more files: not allowed, without a licence, a second copy, and cut short."""
    first, second, third, fourth = articles[:4]
    _write(folder, f"{first.id}-noncommercial", jats.render(_renamed(first, "1"), "CC-BY-NC"))
    _write(folder, f"{second.id}-unlicensed", jats.render(_renamed(second, "2"), None))
    _write(folder, f"{third.id}-copy", jats.render(_renamed(third, "3"), "CC-BY"))
    _write(folder, f"{fourth.id}-broken", jats.cut_short(jats.render(fourth, "CC-BY")))
    return 4


def _renamed(article: Article, suffix: str) -> Article:
    """The same article under another number."""
    return Article(
        article.id + suffix, article.language, article.title, article.abstract, article.sections
    )


def _write_benchmark(world: World, folder: Path) -> int:
    total = 0
    for task, (title, group) in task_titles().items():
        (folder / task).mkdir(parents=True)
        facts = {
            "name": task,
            "title": title,
            "group": group,
            "source": "invented",
            "licence": "CC0-1.0",
        }
        (folder / task / "task.yaml").write_text(yaml.safe_dump(facts, sort_keys=False), "utf-8")
        for language in LANGUAGES:
            asked = questions(world, task, language)
            for split in ("train", "validation", "test"):
                lines = [_line(question) for question in asked if question.split == split]
                _write_jsonl(folder / task / language / f"{split}.jsonl", lines)
            total += len(asked)
    return total


def _line(question: Question) -> dict[str, object]:
    line: dict[str, object] = {
        "id": question.id,
        "stem": question.stem,
        "choices": list(question.choices),
        "gold": question.gold,
    }
    return {**line, "context": question.context} if question.context else line


def _write(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.xml").write_text(text, encoding="utf-8")


def _write_jsonl(path: Path, lines: Iterable[dict[str, object]]) -> None:
    path.parent.mkdir(exist_ok=True)
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")
