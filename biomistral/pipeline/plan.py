"""From a recipe to its steps, in an order in which they can run.

The only place that knows which room makes what from what. Planning reads the user's files to
fingerprint them, but opens no model and loads no library that is slow to load.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from biomistral import artifacts
from biomistral.artifacts import Kind, Origin
from biomistral.errors import InputError
from biomistral.models.hub import is_hub_id
from biomistral.pipeline import making
from biomistral.pipeline.steps import Make, Step
from biomistral.recipe import links
from biomistral.recipe.settings import (
    AwqQuantization,
    BitsandbytesQuantization,
    EvaluateSettings,
    FreshModel,
    PretrainSettings,
    QuantizeSettings,
    Recipe,
    StoredModel,
)

# Raised when the code of a step changes what it makes; artefacts of older versions are made again.
STEP_VERSIONS: Mapping[str, int] = {
    "fresh": 1,
    "corpus": 1,
    "pretrain": 1,
    "merge": 1,
    "quantize": 1,
    "questions": 1,
    "predict": 1,
    "ensemble": 1,
    "score": 1,
    "report": 1,
}
# Settings that say how hard a machine works and not what comes out.
_WITHOUT_EFFECT = {"batch_tokens", "save_every_steps"}


def plan(recipe: Recipe, root: Path) -> list[Step]:
    """List the steps of a recipe in running order.

    Files that are not there are noted in ``Step.missing`` and are no error yet: a recipe can be
    looked at on a machine that lacks its data.
    """
    builder = _Builder(recipe, root)
    for name, source in recipe.models.items():
        builder.model_source(name, source)
    for index in range(len(recipe.corpus)):
        builder.corpus(index)
    for entry in _in_order(recipe):
        if isinstance(entry, PretrainSettings):
            builder.pretrain(entry)
        elif isinstance(entry, AwqQuantization | BitsandbytesQuantization):
            builder.quantize(entry)
        else:
            builder.merge(entry)
    if recipe.evaluate is not None:
        builder.evaluate(recipe.evaluate)
    return builder.ordered()


def _in_order(recipe: Recipe) -> list[links.ModelEntry]:
    """Entries that make models, each after those it is made from; else as in the recipe."""
    waiting = [entry for _, entry in links.model_entries(recipe)]
    made, order = set(recipe.models), []
    while waiting:
        ready = next(e for e in waiting if made.issuperset(links.models_used(e)))
        waiting.remove(ready)
        made.add(ready.name)
        order.append(ready)
    return order


@dataclass
class _Builder:
    """Steps so far, and where each model is found."""

    recipe: Recipe
    root: Path
    steps: dict[str, Step] = field(default_factory=dict)
    places: dict[str, making.Place] = field(default_factory=dict)  # stored models only

    def add(
        self,
        kind: Kind,
        name: str,
        settings: Mapping[str, Any],
        *,
        code: str,
        make: Make,
        needs: Iterable[str] = (),
        sources: Mapping[str, str] | None = None,
        section: str,
        missing: Iterable[str] = (),
    ) -> None:
        needs = tuple(dict.fromkeys(needs))
        inputs = {key: self.steps[key].origin.fingerprint for key in needs if key in self.steps}
        kept = {key: value for key, value in settings.items() if key not in _WITHOUT_EFFECT}
        origin = Origin(kind, name, kept, {**inputs, **(sources or {})}, STEP_VERSIONS[code])
        step = Step(kind, name, origin, tuple(inputs), make, section, tuple(missing))
        self.steps[step.key] = step

    def ordered(self) -> list[Step]:
        """Steps in the order they were added, each after what it needs."""
        order: dict[str, Step] = {}

        def visit(key: str) -> None:
            for needed in self.steps[key].needs:
                visit(needed)
            order.setdefault(key, self.steps[key])

        for key in self.steps:
            visit(key)
        return list(order.values())

    # --- models -----------------------------------------------------------------------------------

    def model(self, name: str) -> making.Place:
        """Where a model is or will be."""
        return self.places.get(name) or making.Place(self.root / f"model/{name}")

    def model_inputs(self, names: Iterable[str]) -> dict[str, Any]:
        """Arguments of ``add`` for a step that reads these models."""
        stored = {name: self.places[name] for name in names if name in self.places}
        return {
            "needs": [f"model/{name}" for name in names if name not in self.places],
            "sources": {f"model/{name}": place.fingerprint() for name, place in stored.items()},
            "missing": [problem for place in stored.values() for problem in place.problems()],
        }

    def model_source(self, name: str, source: StoredModel | FreshModel) -> None:
        if isinstance(source, StoredModel):
            path: str | Path = source.path if is_hub_id(source.path) else Path(source.path)
            self.places[name] = making.Place(path, source.revision)
            return
        corpora = [links.corpus_named(self.recipe, used) for used in source.tokenizer.corpora]
        sources, missing = _file_inputs({c.name: making.corpus_files(c) for c in corpora if c})
        self.add(
            "model",
            name,
            {
                "name": name,
                **source.model_dump(mode="json"),
                "corpora": [c.model_dump(mode="json") for c in corpora if c],
                "seed": self.recipe.seed,
            },
            code="fresh",
            make=making.fresh(source, [c for c in corpora if c], self.recipe.seed),
            sources=sources,
            missing=missing,
            section=f"models.{name}",
        )

    def corpus(self, index: int) -> None:
        settings = self.recipe.corpus[index]
        model = links.tokenizer_model(self.recipe, settings) or ""
        sources, missing = _file_inputs({settings.name: making.corpus_files(settings)})
        reads = self.model_inputs([model])
        self.add(
            "tokens",
            settings.name,
            {**settings.model_dump(mode="json"), "run_seed": self.recipe.seed},
            code="corpus",
            make=making.corpus(settings, self.model(model), self.recipe.seed),
            needs=reads["needs"],
            sources={**reads["sources"], **sources},
            missing=[*reads["missing"], *missing],
            section=f"corpus[{index}]",
        )

    def pretrain(self, entry: PretrainSettings) -> None:
        corpus = links.corpus_named(self.recipe, entry.corpus)
        assert corpus is not None, "names were checked"
        reads = self.model_inputs([entry.model])
        reads["needs"].append(f"tokens/{corpus.name}")
        self.add(
            "model",
            entry.name,
            {**entry.model_dump(mode="json"), "run_seed": self.recipe.seed},
            code="pretrain",
            make=making.pretrain(
                entry, self.model(entry.model), self.tokens(corpus.name), self.recipe.seed
            ),
            section="pretrain",
            **reads,
        )

    def merge(self, entry: Any) -> None:
        used = links.models_used(entry)
        self.add(
            "model",
            entry.name,
            {**entry.model_dump(mode="json"), "run_seed": self.recipe.seed},
            code="merge",
            make=making.merge(entry, {name: self.model(name) for name in used}, self.recipe.seed),
            section="merge",
            **self.model_inputs(used),
        )

    def quantize(self, entry: QuantizeSettings) -> None:
        reads = self.model_inputs([entry.model])
        calibration = None
        if isinstance(entry, AwqQuantization):
            corpus = links.corpus_named(self.recipe, entry.corpus)
            assert corpus is not None, "names were checked"
            calibration = self.tokens(corpus.name)
            reads["needs"].append(f"tokens/{corpus.name}")
        self.add(
            "model",
            entry.name,
            {**entry.model_dump(mode="json"), "run_seed": self.recipe.seed},
            code="quantize",
            make=making.quantize(entry, self.model(entry.model), calibration, self.recipe.seed),
            section="quantize",
            **reads,
        )

    def tokens(self, name: str) -> Path:
        return self.root / f"tokens/{name}"

    # --- evaluation -------------------------------------------------------------------------------

    def evaluate(self, settings: EvaluateSettings) -> None:
        questions = self.root / "questions/benchmark"
        self._questions(settings)
        for name in settings.models:
            reads = self.model_inputs([name])
            reads["needs"].append("questions/benchmark")
            self.add(
                "predictions",
                name,
                {
                    "name": name,
                    **settings.model_dump(
                        mode="json",
                        include={"shots", "seeds", "scoring", "precision", "batch_tokens"},
                    ),
                },
                code="predict",
                make=making.predict(settings, name, self.model(name), questions),
                section="evaluate",
                **reads,
            )
        for ensemble in settings.ensembles:
            members = {name: self.root / f"predictions/{name}" for name in ensemble.models}
            self.add(
                "predictions",
                ensemble.name,
                ensemble.model_dump(mode="json"),
                code="ensemble",
                make=making.ensemble(ensemble, members),
                needs=[f"predictions/{name}" for name in ensemble.models],
                section="evaluate.ensembles",
            )
        self._scores_and_report(settings, questions)

    def _questions(self, settings: EvaluateSettings) -> None:
        chosen = {"tasks": settings.tasks, "languages": settings.languages, "limit": settings.limit}
        sources, missing = _file_inputs(
            {"questions": making.question_files(self.recipe.benchmark, settings)}
        )
        self.add(
            "questions",
            "benchmark",
            {**chosen, "shots_needed": making.shots_needed(settings)},
            code="questions",
            make=making.questions(self.recipe.benchmark, settings),
            sources=sources,
            missing=missing,
            section="benchmark",
        )

    def _scores_and_report(self, settings: EvaluateSettings, questions: Path) -> None:
        ensembles = [ensemble.name for ensemble in settings.ensembles]
        names = [*settings.models, *ensembles]
        predictions = {name: self.root / f"predictions/{name}" for name in names}
        needs = [*(f"predictions/{name}" for name in names), "questions/benchmark"]
        self.add(
            "scores",
            "scores",
            {"models": names, "ensembles": ensembles, "run_seed": self.recipe.seed},
            code="score",
            make=making.score(predictions, questions, ensembles, self.recipe.seed),
            needs=needs,
            section="evaluate",
        )
        listed = self.model_inputs(self._known_models())
        tokens = [f"tokens/{corpus.name}" for corpus in self.recipe.corpus]
        self.add(
            "report",
            "report",
            {"title": self.recipe.name, "models": names},
            code="report",
            make=making.report(
                self.recipe.name,
                root=self.root,
                questions=questions,
                models={name: self.model(name) for name in self._known_models()},
                corpora={c.name: self.tokens(c.name) for c in self.recipe.corpus},
                predictions=predictions,
            ),
            needs=["scores/scores", *needs, *listed["needs"], *tokens],
            sources=listed["sources"],
            missing=listed["missing"],
            section="report",
        )

    def _known_models(self) -> list[str]:
        """Names of all models, in the order of the recipe."""
        return [*self.recipe.models, *(entry.name for _, entry in links.model_entries(self.recipe))]


def _file_inputs(
    finders: Mapping[str, Callable[[], list[Path]]],
) -> tuple[dict[str, str], list[str]]:
    """Fingerprint the user's files; what cannot be found is returned as sentences."""
    sources: dict[str, str] = {}
    missing: list[str] = []
    for name, find in finders.items():
        try:
            sources[f"files/{name}"] = artifacts.fingerprint_of_files(find())
        except InputError as error:
            missing.append(str(error))
    return sources, missing
