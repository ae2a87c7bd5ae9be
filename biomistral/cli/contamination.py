"""What ``biomistral evaluate contamination`` reads and prints: which test questions stand in texts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from rich.console import Console
from rich.table import Table

from biomistral.cli import terminal

if TYPE_CHECKING:
    from biomistral.progress import Progress
    from biomistral.recipe import Recipe
    from biomistral.recipe.settings import CorpusSettings
    from biomistral.records import Question, TaskOverlap

_ARTICLES = (".xml", ".nxml", ".xml.gz", ".nxml.gz", ".tar.gz", ".tgz")


def show(texts: Sequence[str], recipe: Recipe, *, numbers: Path | None) -> None:
    """Look for the test questions of a recipe in texts; print a line per task and language."""
    from biomistral.benchmark.contamination import by_task, overlaps

    console = Console(highlight=False, markup=False)
    settings = corpus_of(texts)
    with terminal.bar(console) as bar:
        listen = terminal.listener(bar, "documents")
        lines = by_task(overlaps(_questions(recipe), _texts(settings, listen)))
    console.print(_table(lines))
    if numbers:
        content = json.dumps([asdict(line) for line in lines], indent=2, ensure_ascii=False)
        numbers.write_text(content + "\n", encoding="utf-8")


def corpus_of(texts: Sequence[str]) -> CorpusSettings:
    """Return the settings of a corpus of files, folders or patterns that leaves nothing out."""
    from biomistral.recipe.fields import Licence
    from biomistral.recipe.settings import CorpusSettings

    articles = [text for text in texts if _is_of_articles(text)]
    return CorpusSettings(
        articles=articles,
        texts=[text for text in texts if text not in articles],
        licences=list(get_args(Licence)),
        minimum_words=0,
    )


def _is_of_articles(text: str) -> bool:
    folder = Path(text)
    if folder.is_dir():
        return any(path.name.lower().endswith(_ARTICLES) for path in folder.rglob("*"))
    return text.lower().endswith(_ARTICLES)


def _texts(settings: CorpusSettings, listen: Progress) -> Iterator[str]:
    """Every text, those that would not enter a corpus, too."""
    from biomistral.corpus.documents import Dropped
    from biomistral.corpus.sources import list_shards, read_shard

    count = 0
    for shard in list_shards(settings):
        for item in read_shard(shard, settings):
            count += 1
            listen(count, None, "documents")
            yield (item.document if isinstance(item, Dropped) else item).text


def _questions(recipe: Recipe) -> list[Question]:
    from biomistral.benchmark.catalogue import choose, read_catalogue
    from biomistral.benchmark.questions import questions_of
    from biomistral.pipeline.making import shots_needed

    settings = recipe.evaluate
    assert settings is not None, "was just given"
    catalogue = read_catalogue(recipe.benchmark.data, recipe.benchmark.hub)
    chosen = choose(catalogue, settings.tasks, settings.languages).languages
    return [
        question
        for name, codes in chosen.items()
        for question in questions_of(catalogue, name, codes, settings.limit, shots_needed(settings))
    ]


def _table(lines: Sequence[TaskOverlap]) -> Table:
    table = Table(
        title="Test questions that share 13 words in a row with a document",
        title_justify="left",
        caption="Too short: no part of the question has 13 words, so it can be neither found nor "
        "excluded.",
    )
    table.add_column("Task", no_wrap=True)
    table.add_column("")
    for heading in ("Questions", "Too short", "Found", "Half found"):
        table.add_column(heading, justify="right")
    table.add_column("Most found", overflow="fold")
    for line in lines:
        counts = (line.num_questions, line.num_too_short, line.num_found, line.num_half_found)
        shown = (f"{count:,}" for count in counts)
        table.add_row(line.task, line.language, *shown, ", ".join(line.examples))
    return table
