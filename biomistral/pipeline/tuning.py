"""The steps of fine-tuning and preference tuning: at most three for each entry of a recipe.

    questions/NAME-training   training questions, without those that overlap with test questions
    adapter/NAME              what is trained; model/NAME if every weight is
    model/NAME                the adapter merged into its model

Part of ``plan`` and ``making``, which know the other steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from biomistral.artifacts import Origin
from biomistral.pipeline.builder import Builder
from biomistral.pipeline.making import FindFiles
from biomistral.pipeline.measuring import add_questions
from biomistral.pipeline.places import Place
from biomistral.pipeline.steps import Make, board_of
from biomistral.progress import Progress
from biomistral.recipe.settings import (
    BenchmarkSettings,
    SftSettings,
)
from biomistral.recipe.tuning import TuningSettings


def add_tuning(builder: Builder, entry: TuningSettings) -> None:
    """Add the steps of one entry of the sections sft and dpo."""
    section = section_of(entry)
    reads = builder.model_inputs([entry.model], whole=True)
    training = None
    if entry.questions is not None:
        training = builder.root / f"questions/{entry.name}-training"
        reads["needs"].append(f"questions/{entry.name}-training")
        _add_questions(builder, entry, section)
    test_runs = None
    if patterns := files_of(entry):
        sources, missing = builder.files(f"{entry.name} data", _data_files(entry, patterns))
        reads["sources"] |= sources
        reads["missing"] += missing
        if builder.recipe.evaluate is not None:
            add_questions(builder, builder.recipe.evaluate)
            reads["needs"].append("questions/benchmark")
            test_runs = builder.root / "questions/benchmark/runs.parquet"
    builder.add(
        "adapter" if entry.makes_adapter else "model",
        entry.name,
        {
            **entry.model_dump(mode="json", exclude={"merge_adapter"}),
            "section": section,
            **({"run_seed": builder.recipe.seed} if entry.seed is None else {}),
        },
        code=section,
        make=_tune(
            entry, builder.model(entry.model), training, test_runs, seed=builder.recipe.seed
        ),
        section=section,
        **reads,
    )
    if entry.makes_adapter and entry.merge_adapter:
        _add_merged(builder, entry, section)


def section_of(entry: TuningSettings) -> str:
    """Section of the recipe that an entry stands in."""
    return "sft" if isinstance(entry, SftSettings) else "dpo"


def files_of(entry: TuningSettings) -> list[str]:
    """Patterns of the user's files that an entry learns from."""
    patterns: list[str] = getattr(entry, "data" if isinstance(entry, SftSettings) else "pairs")
    return patterns


def _add_questions(builder: Builder, entry: TuningSettings, section: str) -> None:
    benchmark = builder.recipe.benchmark
    sources, missing = builder.files("questions", _question_files(benchmark, entry))
    builder.add(
        "questions",
        f"{entry.name}-training",
        {"tasks": entry.questions, "languages": entry.languages},
        code="training_questions",
        make=_training_questions(benchmark, entry),
        sources=sources,
        missing=missing,
        section=section,
    )


def _add_merged(builder: Builder, entry: TuningSettings, section: str) -> None:
    reads = builder.model_inputs([entry.model], whole=True)
    reads["needs"].append(f"adapter/{entry.name}")
    builder.add(
        "model",
        entry.name,
        {"name": entry.name, "model": entry.model, "section": section, "method": entry.method},
        code="merge",
        make=_merge_adapter(
            entry, builder.model(entry.model), builder.root / f"adapter/{entry.name}"
        ),
        section=section,
        **reads,
    )


# --- how each step calls its room -----------------------------------------------------------------


def _question_files(benchmark: BenchmarkSettings, entry: TuningSettings) -> FindFiles:
    def find() -> list[tuple[str, Path]]:
        from biomistral.benchmark import find_training_files

        assert entry.questions is not None, "asked for"
        return find_training_files(benchmark, entry.questions, entry.languages)

    return find


def _data_files(entry: TuningSettings, patterns: Sequence[str]) -> FindFiles:
    """Find files and read each line, so that a wrong one is told before hours of other steps."""

    def find() -> list[tuple[str, Path]]:
        from biomistral.training import find_data_files, read_conversations, read_pairs

        found = find_data_files(patterns)
        read: Any = read_conversations if isinstance(entry, SftSettings) else read_pairs
        read([path for _, path in found])
        return found

    return find


def _training_questions(benchmark: BenchmarkSettings, entry: TuningSettings) -> Make:
    def make(out: Path, origin: Origin, progress: Progress) -> None:
        from biomistral.benchmark import load_training_questions

        assert entry.questions is not None, "asked for"
        load_training_questions(
            benchmark, entry.questions, entry.languages, out, origin=origin, progress=progress
        )

    return make


def _tune(
    entry: TuningSettings,
    model: Place,
    training: Path | None,
    test_runs: Path | None,
    *,
    seed: int,
) -> Make:
    """An adapter, or a model of which every weight was trained."""

    def make(out: Path, origin: Origin, progress: Progress) -> None:
        from biomistral.benchmark import training_requests
        from biomistral.models.chat import message_renderer
        from biomistral.records import Question, read_records
        from biomistral.training import fine_tune, prefer

        folder = model.folder()
        render = message_renderer(folder) if entry.template == "chat" else None
        questions = list(read_records(training / "questions.parquet", Question)) if training else []
        requests = list(
            training_requests(
                questions, template=entry.template, answer=entry.answer, render=render
            )
        )
        tune: Any = fine_tune if isinstance(entry, SftSettings) else prefer
        tune(
            entry,
            folder,
            out,
            requests=requests,
            test_runs=test_runs,
            seed=seed,
            origin=origin,
            progress=progress,
            board=board_of(out),
        )

    return make


def _merge_adapter(entry: TuningSettings, model: Place, adapter: Path) -> Make:
    """A model with an adapter merged into it, through the engine of merging."""

    def make(out: Path, origin: Origin, progress: Progress) -> None:
        from biomistral.merging import merge
        from biomistral.models.cards import read_card
        from biomistral.recipe.merging import LayersInput, PassthroughMerge

        merged = PassthroughMerge(
            name=entry.name,
            method="passthrough",
            models=[LayersInput(model="base+adapter")],
        )
        card = read_card(adapter)
        assert card is not None, "training wrote one"
        said = f"{card.description} The adapter is merged into its base."
        merge(
            merged,
            out,
            models={"base": model.folder(), "adapter": adapter},
            card=replace(card, relation="finetune", description=said),
            origin=origin,
            progress=progress,
        )

    return make
