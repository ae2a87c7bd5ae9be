"""The steps of an evaluation: questions, overlap with corpora, predictions, scores, report.

A part of ``plan``, which adds these steps after those that make models.
"""

from __future__ import annotations

from pathlib import Path

from biomistral import artifacts
from biomistral.pipeline import making
from biomistral.pipeline.builder import Builder
from biomistral.pipeline.deciding import NOT_OF_ANSWERS
from biomistral.pipeline.distances import add_distances
from biomistral.pipeline.places import Place, Served
from biomistral.pipeline.translated import add_translated
from biomistral.recipe import links
from biomistral.recipe.settings import CorpusSettings, EvaluateSettings


def add_evaluation(builder: Builder, settings: EvaluateSettings) -> None:
    """Add all steps from the questions to the report."""
    questions = builder.root / "questions/benchmark"
    add_questions(builder, settings)
    if settings.find_overlap:
        for corpus in builder.recipe.corpus:
            _add_overlap(builder, corpus, questions)
    for name in settings.models:
        reads = builder.model_inputs([name])
        reads["needs"].append("questions/benchmark")
        builder.add(
            "predictions",
            name,
            {
                "name": name,
                **settings.model_dump(mode="json", exclude=NOT_OF_ANSWERS),
            },
            code="predict",
            make=making.predict(
                settings,
                name,
                builder.places.get(name) or builder.model(name),
                questions,
                builder.root / "units",
            ),
            section="evaluate",
            **reads,
        )
    for ensemble in settings.ensembles:
        members = {name: builder.root / f"predictions/{name}" for name in ensemble.models}
        builder.add(
            "predictions",
            ensemble.name,
            ensemble.model_dump(mode="json"),
            code="ensemble",
            make=making.ensemble(ensemble, members),
            needs=[f"predictions/{name}" for name in ensemble.models],
            section="evaluate.ensembles",
        )
    if settings.cost:
        _add_cost(builder, settings)
    _add_scores_and_report(builder, settings, questions)


def add_questions(builder: Builder, settings: EvaluateSettings) -> None:
    """Add the step that reads the questions."""
    chosen = {"tasks": settings.tasks, "languages": settings.languages, "limit": settings.limit}
    find = making.question_files(builder.recipe.benchmark, settings)
    sources, missing = builder.files("questions", find)
    builder.add(
        "questions",
        "benchmark",
        {**chosen, "shots_needed": making.shots_needed(settings)},
        code="questions",
        make=making.questions(builder.recipe.benchmark, settings),
        sources=sources,
        missing=missing,
        section="benchmark",
    )


def _add_overlap(builder: Builder, settings: CorpusSettings, questions: Path) -> None:
    """Add the step that looks for questions in the rows of a corpus."""
    model = links.tokenizer_model(builder.recipe, settings) or ""
    reads = builder.model_inputs([model])
    reads["needs"] += [f"tokens/{settings.name}", "questions/benchmark"]
    builder.add(
        "overlap",
        settings.name,
        {},
        code="overlap",
        make=making.overlap(
            settings, builder.model(model), builder.tokens(settings.name), questions
        ),
        section="evaluate",
        **reads,
    )


def _add_cost(builder: Builder, settings: EvaluateSettings) -> None:
    """Add the step that measures memory and speed of the evaluated models that have files."""
    names = [name for name in settings.models if not isinstance(builder.places.get(name), Served)]
    builder.add(
        "scores",
        "cost",
        {"models": names, "precision": settings.precision},
        code="cost",
        make=making.cost(settings, {name: builder.model(name) for name in names}),
        section="evaluate",
        **builder.model_inputs(names),
    )


def _add_scores_and_report(builder: Builder, settings: EvaluateSettings, questions: Path) -> None:
    ensembles = [ensemble.name for ensemble in settings.ensembles]
    names = [*settings.models, *ensembles]
    predictions = {name: builder.root / f"predictions/{name}" for name in names}
    needs = [*(f"predictions/{name}" for name in names), "questions/benchmark"]
    saved = _saved_calibration(builder, settings)
    builder.add(
        "scores",
        "scores",
        {"models": names, "ensembles": ensembles, "run_seed": builder.recipe.seed},
        code="score",
        make=making.score(
            predictions,
            questions,
            ensembles,
            builder.recipe.seed,
            {
                name: builder.root / f"model/{name}"
                for name in settings.models
                if f"model/{name}" in builder.steps
            },
            saved,
        ),
        needs=needs,
        sources={
            f"calibration/{name}": artifacts.file_digest(path) for name, path in saved.items()
        },
        section="evaluate",
    )
    listed = builder.model_inputs(_known_models(builder))
    tokens = [f"tokens/{corpus.name}" for corpus in builder.recipe.corpus]
    adapters = _adapters(builder)
    distances = add_distances(builder) if settings.distances else {}
    translated = add_translated(builder)
    looked_at = builder.recipe.corpus if settings.find_overlap else []
    builder.add(
        "report",
        "report",
        {"title": builder.recipe.name, "models": names, "texts": settings.shown_texts},
        code="report",
        make=making.report(
            builder.recipe.name,
            root=builder.root,
            questions=questions,
            models={name: builder.model(name) for name in _known_models(builder)},
            corpora={c.name: builder.tokens(c.name) for c in builder.recipe.corpus},
            predictions=predictions,
            overlaps={c.name: builder.root / f"overlap/{c.name}" for c in looked_at},
            has_costs=settings.cost,
            adapters=adapters,
            texts=settings.shown_texts,
            distances=distances,
            translations=translated.folders,
        ),
        needs=[
            "scores/scores",
            *needs,
            *listed["needs"],
            *tokens,
            *(f"adapter/{name}" for name in adapters),
            *(f"distances/{name}" for name in distances),
            *(f"overlap/{corpus.name}" for corpus in looked_at),
            *(["scores/cost"] if settings.cost else []),
            *translated.needs,
        ],
        sources={**listed["sources"], **translated.sources},
        missing=[*listed["missing"], *translated.missing],
        section="report",
    )


def _adapters(builder: Builder) -> dict[str, Path]:
    """Folders of all adapters that are trained, in the order of the recipe."""
    entries = (*builder.recipe.sft, *builder.recipe.dpo)
    return {e.name: builder.root / f"adapter/{e.name}" for e in entries if e.makes_adapter}


def _saved_calibration(builder: Builder, settings: EvaluateSettings) -> dict[str, Path]:
    """Files that lie beside the user's models, if they are to be applied."""
    found: dict[str, Path] = {}
    for name in settings.models if settings.calibration == "saved" else ():
        place = builder.places.get(name)
        if isinstance(place, Place):
            path = Path(place.path) / artifacts.CALIBRATION
            found |= {name: path} if path.is_file() else {}
    return found


def _known_models(builder: Builder) -> list[str]:
    """Names of all models that have files, in the order of the recipe."""
    made = (e.name for _, e in links.model_entries(builder.recipe) if links.makes_model(e))
    names = (*builder.recipe.models, *made)
    return [name for name in names if not isinstance(builder.places.get(name), Served)]
