"""From a recipe to its steps, in an order in which they can run.

The only place that knows which room makes what from what. Planning reads the user's files to
fingerprint them, but opens no model and loads no library that is slow to load.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from biomistral import artifacts, versions
from biomistral.artifacts import Kind, Origin
from biomistral.errors import InputError
from biomistral.models.hub import is_hub_id
from biomistral.pipeline import making
from biomistral.pipeline.digests import FileDigests
from biomistral.pipeline.steps import Make, Step
from biomistral.recipe import links
from biomistral.recipe.quantizing import Quantization
from biomistral.recipe.settings import (
    AwqQuantization,
    CorpusSettings,
    DareMerge,
    EndpointModel,
    EvaluateSettings,
    FreshModel,
    PretrainSettings,
    QuantizeSettings,
    Recipe,
    StoredModel,
)

# Settings that say how hard a machine works and not what comes out, to the last bit.
_WITHOUT_EFFECT = {"save_every_steps"}
# Of an evaluation, those that say which questions and models; all others decide the answers.
_NOT_OF_ANSWERS = {"models", "tasks", "languages", "limit", "ensembles"}
# Of a corpus, those that decide its texts: all that a tokenizer trained on it depends on.
_OF_TEXTS = {
    *("articles", "texts", "text_column", "keep", "licences", "article_types", "languages"),
    *("minimum_words", "quality", "exclude_overlap_with"),
}


def plan(recipe: Recipe, root: Path) -> list[Step]:
    """List the steps of a recipe in running order.

    Files that are not there are noted in ``Step.missing`` and are no error yet: a recipe can be
    looked at on a machine that lacks its data.
    """
    digests = FileDigests(root)
    builder = _Builder(recipe, root, digests)
    if recipe.evaluate and any(corpus.exclude_overlap_with for corpus in recipe.corpus):
        builder.questions(recipe.evaluate)
    for name, source in recipe.models.items():
        builder.model_source(name, source)
    for index in range(len(recipe.corpus)):
        builder.corpus(index)
    for entry in _in_order(recipe):
        if isinstance(entry, PretrainSettings):
            builder.pretrain(entry)
        elif isinstance(entry, Quantization):
            builder.quantize(entry)
        else:
            builder.merge(entry)
    if recipe.evaluate is not None:
        builder.evaluate(recipe.evaluate)
    digests.save()
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
    digests: FileDigests
    steps: dict[str, Step] = field(default_factory=dict)
    # Models that no step makes: stored or served ones.
    places: dict[str, making.Place | making.Served] = field(default_factory=dict)
    found: dict[str, tuple[dict[str, str], list[str]]] = field(default_factory=dict)  # corpora

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
        origin = Origin(
            kind, name, kept, {**inputs, **(sources or {})}, versions.STEP_VERSIONS[code]
        )
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

    def run_seed(self, settings: CorpusSettings | links.ModelEntry) -> dict[str, int]:
        return {"run_seed": self.recipe.seed} if _uses_run_seed(settings) else {}

    def files(self, name: str, find: making.FindFiles) -> tuple[dict[str, str], list[str]]:
        """Fingerprint of the user's files; or, as sentences, which of them are not there."""
        try:
            return {f"files/{name}": artifacts.fingerprint_of_files(find(), self.digests)}, []
        except InputError as error:
            return {}, [str(error)]

    def corpus_files(self, settings: CorpusSettings) -> tuple[dict[str, str], list[str]]:
        """The same for a corpus, which is looked up once a plan however many steps read it."""
        if settings.name not in self.found:
            found = self.files(settings.name, making.corpus_files(settings))
            self.found[settings.name] = found
        return self.found[settings.name]

    # --- models -----------------------------------------------------------------------------------

    def model(self, name: str) -> making.Place:
        """Where a model is or will be; not for served ones, which the recipe's check keeps away."""
        place = self.places.get(name) or making.Place(self.root / f"model/{name}")
        assert isinstance(place, making.Place), f"{name} has no files"
        return place

    def model_inputs(self, names: Iterable[str]) -> dict[str, Any]:
        """Arguments of ``add`` for a step that reads these models."""
        stored = {name: self.places[name] for name in names if name in self.places}
        return {
            "needs": [f"model/{name}" for name in names if name not in self.places],
            "sources": {f"model/{name}": place.fingerprint() for name, place in stored.items()},
            "missing": [problem for place in stored.values() for problem in place.problems()],
        }

    def model_source(self, name: str, source: StoredModel | FreshModel | EndpointModel) -> None:
        if isinstance(source, EndpointModel):
            self.places[name] = making.Served(source)
            return
        if isinstance(source, StoredModel):
            path: str | Path = source.path if is_hub_id(source.path) else Path(source.path)
            self.places[name] = making.Place(path, source.revision)
            return
        named = [links.corpus_named(self.recipe, used) for used in source.tokenizer.corpora]
        corpora = [corpus for corpus in named if corpus]
        found = [self.corpus_files(corpus) for corpus in corpora]
        self.add(
            "model",
            name,
            {
                "name": name,
                **source.model_dump(mode="json"),
                "corpora": [_of_texts(corpus) for corpus in corpora],
                "seed": self.recipe.seed,
            },
            code="fresh",
            make=making.fresh(source, corpora, self.recipe.seed, self.root / "questions/benchmark"),
            needs=["questions/benchmark"] if any(c.exclude_overlap_with for c in corpora) else [],
            sources={key: mark for sources, _ in found for key, mark in sources.items()},
            missing=[problem for _, missing in found for problem in missing],
            section=f"models.{name}",
        )

    def corpus(self, index: int) -> None:
        settings = self.recipe.corpus[index]
        model = links.tokenizer_model(self.recipe, settings) or ""
        sources, missing = self.corpus_files(settings)
        reads = self.model_inputs([model])
        if settings.exclude_overlap_with:
            reads["needs"].append("questions/benchmark")
        self.add(
            "tokens",
            settings.name,
            {**_set(settings), **self.run_seed(settings)},
            code="corpus",
            make=making.corpus(
                settings,
                self.model(model),
                self.recipe.seed,
                self.root / "questions/benchmark",
            ),
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
            {**entry.model_dump(mode="json"), **self.run_seed(entry)},
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
            {**entry.model_dump(mode="json"), **self.run_seed(entry)},
            code="merge",
            make=making.merge(entry, {name: self.model(name) for name in used}, self.recipe.seed),
            section="merge",
            **self.model_inputs(used),
        )

    def quantize(self, entry: QuantizeSettings) -> None:
        reads = self.model_inputs([entry.model])
        texts: dict[str, Path] = {}
        if isinstance(entry, AwqQuantization):
            corpus = links.corpus_named(self.recipe, entry.corpus)
            assert corpus is not None, "names were checked"
            texts["calibration"] = self.tokens(corpus.name)
        if entry.held_out is not None:
            texts["held_out"] = self.tokens(entry.held_out)
        reads["needs"] += [f"tokens/{folder.name}" for folder in texts.values()]
        self.add(
            "model",
            entry.name,
            {**entry.model_dump(mode="json"), **self.run_seed(entry)},
            code="quantize",
            make=making.quantize(entry, self.model(entry.model), texts, self.recipe.seed),
            section="quantize",
            **reads,
        )

    def tokens(self, name: str) -> Path:
        return self.root / f"tokens/{name}"

    # --- evaluation -------------------------------------------------------------------------------

    def evaluate(self, settings: EvaluateSettings) -> None:
        questions = self.root / "questions/benchmark"
        self.questions(settings)
        for name in settings.models:
            reads = self.model_inputs([name])
            reads["needs"].append("questions/benchmark")
            self.add(
                "predictions",
                name,
                {
                    "name": name,
                    **settings.model_dump(mode="json", exclude=_NOT_OF_ANSWERS),
                },
                code="predict",
                make=making.predict(
                    settings,
                    name,
                    self.places.get(name) or self.model(name),
                    questions,
                    self.root / "units",
                ),
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

    def questions(self, settings: EvaluateSettings) -> None:
        """Add the step that reads the questions."""
        chosen = {"tasks": settings.tasks, "languages": settings.languages, "limit": settings.limit}
        find = making.question_files(self.recipe.benchmark, settings)
        sources, missing = self.files("questions", find)
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
            make=making.score(
                predictions,
                questions,
                ensembles,
                self.recipe.seed,
                {
                    name: self.root / f"model/{name}"
                    for name in settings.models
                    if f"model/{name}" in self.steps
                },
            ),
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
        """Names of all models that have files, in the order of the recipe."""
        made = (entry.name for _, entry in links.model_entries(self.recipe))
        names = (*self.recipe.models, *made)
        return [name for name in names if not isinstance(self.places.get(name), making.Served)]


def _set(settings: CorpusSettings) -> dict[str, Any]:
    """Settings of a corpus, without an option that is not used: older corpora stay as they are."""
    unused = set() if settings.exclude_overlap_with else {"exclude_overlap_with"}
    return settings.model_dump(mode="json", exclude=unused)


def _of_texts(settings: CorpusSettings) -> dict[str, Any]:
    """Settings of a corpus that decide its texts."""
    return {key: value for key, value in _set(settings).items() if key in _OF_TEXTS}


def _uses_run_seed(settings: CorpusSettings | links.ModelEntry) -> bool:
    """Whether the recipe's seed has a say: something is drawn, and no seed of its own is given."""
    if isinstance(settings, CorpusSettings):
        mix = settings.language_mix
        return (
            settings.held_out_fraction > 0 or mix.tokens is not None or mix.others_share is not None
        )
    if isinstance(settings, PretrainSettings | DareMerge):
        return settings.seed is None
    return isinstance(settings, AwqQuantization)
