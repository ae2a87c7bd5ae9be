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
from biomistral.pipeline.deciding import WITHOUT_EFFECT, of_corpus, of_texts, uses_run_seed
from biomistral.pipeline.digests import FileDigests
from biomistral.pipeline.measuring import add_evaluation, add_questions
from biomistral.pipeline.places import Place, Served
from biomistral.pipeline.steps import Make, Step
from biomistral.pipeline.tuning import add_tuning
from biomistral.recipe import links
from biomistral.recipe.quantizing import Quantization
from biomistral.recipe.settings import (
    AwqQuantization,
    CorpusSettings,
    EndpointModel,
    FreshModel,
    PretrainSettings,
    QuantizeSettings,
    Recipe,
    StoredModel,
)
from biomistral.recipe.tuning import TuningSettings


def plan(recipe: Recipe, root: Path, *, corpora: Mapping[str, str] | None = None) -> list[Step]:
    """List the steps of a recipe in running order.

    Files that are not there are noted in ``Step.missing`` and are no error yet: a recipe can be
    looked at on a machine that lacks its data. ``corpora`` are fingerprints of the files of corpora,
    by name, from who has looked at them: a million articles are not looked at once a step.
    """
    digests = FileDigests(root) if corpora is None else FileDigests(root, remember=False)
    builder = _Builder(recipe, root, digests)
    for name, mark in (corpora or {}).items():
        builder.found[name] = {f"files/{name}": mark}, []
    if recipe.evaluate and any(corpus.exclude_overlap_with for corpus in recipe.corpus):
        add_questions(builder, recipe.evaluate)
    for name, source in recipe.models.items():
        builder.model_source(name, source)
    for index in range(len(recipe.corpus)):
        builder.corpus(index)
    for entry in _in_order(recipe):
        if isinstance(entry, PretrainSettings):
            builder.pretrain(entry)
        elif isinstance(entry, TuningSettings):
            add_tuning(builder, entry)
        elif isinstance(entry, Quantization):
            builder.quantize(entry)
        else:
            builder.merge(entry)
    if recipe.evaluate is not None:
        add_evaluation(builder, recipe.evaluate)
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
    places: dict[str, Place | Served] = field(default_factory=dict)
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
        kept = {key: value for key, value in settings.items() if key not in WITHOUT_EFFECT}
        origin = Origin(
            kind, name, kept, {**inputs, **(sources or {})}, versions.STEP_VERSIONS[code]
        )
        step = Step(kind, name, origin, tuple(inputs), make, section, tuple(missing), code)
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
        return {"run_seed": self.recipe.seed} if uses_run_seed(settings) else {}

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

    def model(self, name: str) -> Place:
        """Where a model is or will be; not for served ones, which the recipe's check keeps away."""
        place = self.places.get(name) or Place(self.root / f"model/{name}")
        assert isinstance(place, Place), f"{name} has no files"
        return place

    def model_inputs(self, names: Iterable[str], *, whole: bool = False) -> dict[str, Any]:
        """Arguments of ``add`` for a step that reads these models; ``whole``: as checkpoints."""
        stored = {name: self.places[name] for name in names if name in self.places}
        return {
            "needs": [f"model/{name}" for name in names if name not in self.places],
            "sources": {f"model/{name}": place.fingerprint() for name, place in stored.items()},
            "missing": [
                problem for place in stored.values() for problem in place.problems(whole=whole)
            ],
        }

    def model_source(self, name: str, source: StoredModel | FreshModel | EndpointModel) -> None:
        if isinstance(source, EndpointModel):
            self.places[name] = Served(source)
            return
        if isinstance(source, StoredModel):
            path: str | Path = source.path if is_hub_id(source.path) else Path(source.path)
            self.places[name] = Place(path, source.revision)
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
                "corpora": [of_texts(corpus) for corpus in corpora],
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
        reads = self.model_inputs([model], whole=True)
        if settings.exclude_overlap_with:
            reads["needs"].append("questions/benchmark")
        self.add(
            "tokens",
            settings.name,
            {**of_corpus(settings), **self.run_seed(settings)},
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
        reads = self.model_inputs([entry.model], whole=True)
        others = {name: self.tokens(name) for name in entry.further_corpora}
        reads["needs"] += [f"tokens/{name}" for name in (corpus.name, *others)]
        self.add(
            "model",
            entry.name,
            {**entry.model_dump(mode="json"), **self.run_seed(entry)},
            code="pretrain",
            make=making.pretrain(
                entry, self.model(entry.model), self.tokens(corpus.name), others, self.recipe.seed
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
            **self.model_inputs(used, whole=True),
        )

    def quantize(self, entry: QuantizeSettings) -> None:
        reads = self.model_inputs([entry.model], whole=True)
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
