"""How the names in a recipe hang together: which entry makes a model, and what goes back to what.

Pure functions of a ``Recipe``. Knows nothing about files or about how a step is done.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from biomistral.errors import did_you_mean
from biomistral.recipe.quantizing import Quantization
from biomistral.recipe.settings import (
    AwqQuantization,
    CorpusSettings,
    DpoSettings,
    EndpointModel,
    FreshModel,
    MergeSettings,
    PretrainSettings,
    QuantizeSettings,
    Recipe,
    SftSettings,
)
from biomistral.recipe.tuning import TuningSettings

ModelEntry = PretrainSettings | SftSettings | DpoSettings | MergeSettings | QuantizeSettings


def model_entries(recipe: Recipe) -> Iterator[tuple[str, ModelEntry]]:
    """Yield every entry that makes a model, with its path in the recipe."""
    for section in ("pretrain", "sft", "dpo", "merge", "quantize"):
        for index, entry in enumerate(getattr(recipe, section)):
            yield f"{section}[{index}]", entry


def makes_model(entry: ModelEntry) -> bool:
    """Whether an entry makes a whole model, and not an adapter alone."""
    alone = isinstance(entry, TuningSettings) and entry.makes_adapter and not entry.merge_adapter
    return not alone


def models_used(entry: ModelEntry) -> list[str]:
    """Names of the models that an entry is made from, without repeats."""
    if isinstance(entry, PretrainSettings | TuningSettings | Quantization):
        return [entry.model]
    base = [entry.base] if entry.base is not None else []
    return list(dict.fromkeys([*base, *(source.model for source in entry.models)]))


def corpus_named(recipe: Recipe, name: str | None) -> CorpusSettings | None:
    """The corpus of that name; without a name, the only one there is."""
    if name is None:
        return recipe.corpus[0] if len(recipe.corpus) == 1 else None
    return next((corpus for corpus in recipe.corpus if corpus.name == name), None)


def reads_corpus(recipe: Recipe, entry: PretrainSettings, corpus: CorpusSettings) -> bool:
    """Whether a training run is on a corpus, mixes it in or measures on it."""
    if corpus_named(recipe, entry.corpus) is corpus:
        return True
    return corpus.name in entry.further_corpora


def tokenizer_model(recipe: Recipe, corpus: CorpusSettings) -> str | None:
    """Declared model whose tokenizer cuts a corpus; None if nothing says which.

    Training and merging keep the tokenizer, so names are followed back to the one under ``models``:
    the tokens then do not depend on any training.
    """
    if corpus.tokenizer is not None:
        return declared_ancestor(recipe, corpus.tokenizer)
    for entry in recipe.pretrain:
        if reads_corpus(recipe, entry, corpus):
            return declared_ancestor(recipe, entry.model)
    own = [name for name, m in recipe.models.items() if not isinstance(m, EndpointModel)]
    return own[0] if len(own) == 1 else None


def declared_ancestor(recipe: Recipe, name: str) -> str | None:
    """Follow a model back to the one under ``models`` that it was made from."""
    makers = {entry.name: entry for _, entry in model_entries(recipe)}
    seen: set[str] = set()
    while name in makers and name not in seen:
        seen.add(name)
        name = models_used(makers[name])[0]
    return name if name in recipe.models else None


def link_problems(recipe: Recipe) -> list[str]:
    """Every name that is unknown, used twice or part of a circle, as one sentence each."""
    return [
        *_repeated_names(recipe),
        *_unknown_models(recipe),
        *_served_models(recipe),
        *_adapters_without_model(recipe),
        *_quantized_starts(recipe),
        *_unknown_corpora(recipe),
        *_held_out_problems(recipe),
        *_unknown_tokenizers(recipe),
        *_two_tokenizers(recipe),
        *_mixed_corpora(recipe),
        *_circles(recipe),
        *_evaluation_problems(recipe),
        *_overlap_problems(recipe),
    ]


def _all_models(recipe: Recipe) -> list[str]:
    return [*recipe.models, *(entry.name for _, entry in model_entries(recipe))]


def _unknown(where: str, what: str, name: str, allowed: Iterable[str]) -> str:
    known = list(allowed)
    listed = ", ".join(known) if known else f"none, the recipe declares no {what}"
    return f"{where}: there is no {what} {name!r}{did_you_mean(name, known)} (there is: {listed})"


def _repeated_names(recipe: Recipe) -> Iterator[str]:
    ensembles = recipe.evaluate.ensembles if recipe.evaluate else []
    groups = {
        "model": [*_all_models(recipe), *(ensemble.name for ensemble in ensembles)],
        "corpus": [corpus.name for corpus in recipe.corpus],
    }
    for what, names in groups.items():
        for name in dict.fromkeys(n for n in names if names.count(n) > 1):
            yield f"the {what} name {name!r} is used {names.count(name)} times; names are unique"


def _unknown_models(recipe: Recipe) -> Iterator[str]:
    known = _all_models(recipe)
    for path, entry in model_entries(recipe):
        for name in models_used(entry):
            if name not in known:
                yield _unknown(path, "model", name, known)


def _served_models(recipe: Recipe) -> Iterator[str]:
    """Models behind an endpoint where weights or a tokenizer are needed."""
    used = [(path, name) for path, entry in model_entries(recipe) for name in models_used(entry)]
    used += [(f"corpus[{i}].tokenizer", c.tokenizer or "") for i, c in enumerate(recipe.corpus)]
    for path, name in used:
        if isinstance(recipe.models.get(name), EndpointModel):
            yield (
                f"{path}: the model {name!r} is behind an endpoint, where it can be evaluated and "
                "no more; name one that is in a folder or on the hub"
            )


def _adapters_without_model(recipe: Recipe) -> Iterator[str]:
    """Adapters that are not merged, named where a model is due."""
    alone = {entry.name for _, entry in model_entries(recipe) if not makes_model(entry)}
    used = [(path, name) for path, entry in model_entries(recipe) for name in models_used(entry)]
    used += [
        ("evaluate.models", name) for name in (recipe.evaluate.models if recipe.evaluate else [])
    ]
    for path, name in used:
        if name in alone:
            yield (
                f"{path}: {name!r} is an adapter alone (merge_adapter: false), and a model is due; "
                "leave merge_adapter out"
            )


def _quantized_starts(recipe: Recipe) -> Iterator[str]:
    """Training that is to start from a quantized model of the recipe."""
    quantized = {entry.name: entry.model for entry in recipe.quantize}
    for path, entry in model_entries(recipe):
        if isinstance(entry, PretrainSettings | TuningSettings) and entry.model in quantized:
            remedy = f"start from {quantized[entry.model]!r}"
            if isinstance(entry, TuningSettings):
                remedy += ", which method: qlora holds in 8 or 4 bits while it trains an adapter"
            yield (
                f"{path}.model: {entry.model!r} is quantized, and quantized weights cannot be "
                f"trained; {remedy}"
            )


def _unknown_corpora(recipe: Recipe) -> Iterator[str]:
    names = [corpus.name for corpus in recipe.corpus]
    for path, entry in model_entries(recipe):
        if isinstance(entry, PretrainSettings | AwqQuantization):
            if entry.corpus is not None and entry.corpus not in names:
                yield _unknown(f"{path}.corpus", "corpus", entry.corpus, names)
            elif entry.corpus is None and len(names) != 1:
                yield f"{path}.corpus: is missing, and there are {len(names)} corpora to choose from"
    for name, model in recipe.models.items():
        for used in model.tokenizer.corpora if isinstance(model, FreshModel) else []:
            if used not in names:
                yield _unknown(f"models.{name}.tokenizer.corpora", "corpus", used, names)


def _held_out_problems(recipe: Recipe) -> Iterator[str]:
    """Corpora to measure perplexity on that are not there, or hold nothing out."""
    for index, entry in enumerate(recipe.quantize):
        if entry.held_out is None:
            continue
        where, corpus = f"quantize[{index}].held_out", corpus_named(recipe, entry.held_out)
        if corpus is None:
            names = [corpus.name for corpus in recipe.corpus]
            yield _unknown(where, "corpus", entry.held_out, names)
        elif not corpus.held_out_fraction:
            yield _holds_nothing_out(where, corpus.name)


def _holds_nothing_out(where: str, corpus: str) -> str:
    return (
        f"{where}: the corpus {corpus!r} holds nothing out; set its held_out_fraction, or leave "
        "this out"
    )


def _mixed_corpora(recipe: Recipe) -> Iterator[str]:
    """Further corpora of training that are not there, there already, or have nothing to measure."""
    corpora = {corpus.name: corpus for corpus in recipe.corpus}
    for index, entry in enumerate(recipe.pretrain):
        own = corpus_named(recipe, entry.corpus)
        mixed = [part.corpus for part in entry.mix]
        for name in dict.fromkeys(name for name in mixed if mixed.count(name) > 1):
            yield f"pretrain[{index}].mix: {name!r} is given twice; give it one share"
        for key, used in (("mix", dict.fromkeys(mixed)), ("held_out", entry.held_out)):
            for name in used:
                path = f"pretrain[{index}].{key}"
                if name not in corpora:
                    yield _unknown(path, "corpus", name, corpora)
                elif corpora[name] is own:
                    yield f"{path}: {name!r} is the corpus that is trained on already; leave it out"
                elif key == "held_out" and not corpora[name].held_out_fraction:
                    yield _holds_nothing_out(path, name)


def _unknown_tokenizers(recipe: Recipe) -> Iterator[str]:
    """Corpora of which nothing says, or not truly, which tokenizer cuts them."""
    for index, corpus in enumerate(recipe.corpus):
        known = _all_models(recipe)
        trained = any(reads_corpus(recipe, entry, corpus) for entry in recipe.pretrain)
        if corpus.tokenizer is not None:
            if corpus.tokenizer not in known:
                yield _unknown(f"corpus[{index}].tokenizer", "model", corpus.tokenizer, known)
        elif tokenizer_model(recipe, corpus) is None and not trained:
            yield (
                f"corpus[{index}].tokenizer: nothing says which tokenizer cuts {corpus.name!r}; "
                "name a model here, or train one on it"
            )


def _two_tokenizers(recipe: Recipe) -> Iterator[str]:
    """Corpora that nothing says how to cut but the models trained on them, and these disagree."""
    for index, corpus in enumerate(recipe.corpus):
        trained = [e for e in recipe.pretrain if reads_corpus(recipe, e, corpus)]
        origins = {e.name: declared_ancestor(recipe, e.model) for e in trained}
        origins = {name: origin for name, origin in origins.items() if origin is not None}
        if corpus.tokenizer is None and len(set(origins.values())) > 1:
            listed = ", ".join(f"{name} of {origin}" for name, origin in origins.items())
            yield (
                f"corpus[{index}].tokenizer: {corpus.name!r} is cut by one tokenizer, and the "
                f"models trained on it go back to different ones ({listed}); give each its own "
                "corpus entry with its own tokenizer, or name the one they share here"
            )


def _circles(recipe: Recipe) -> Iterator[str]:
    uses: Mapping[str, list[str]] = {e.name: models_used(e) for _, e in model_entries(recipe)}
    reported: set[frozenset[str]] = set()
    for start in uses:
        circle = _circle_from(start, uses)
        if circle and frozenset(circle) not in reported:
            reported.add(frozenset(circle))
            yield f"models are made from each other in a circle: {' <- '.join(circle)}"


def _circle_from(start: str, uses: Mapping[str, list[str]]) -> list[str]:
    """A path that leads from a name back to it, or an empty list."""
    stack = [[start]]
    seen: set[str] = set()
    while stack:
        path = stack.pop()
        for name in uses.get(path[-1], []):
            if name == start:
                return [*path, start]
            if name not in seen:
                seen.add(name)
                stack.append([*path, name])
    return []


def _overlap_problems(recipe: Recipe) -> Iterator[str]:
    for index, corpus in enumerate(recipe.corpus):
        if corpus.exclude_overlap_with and recipe.evaluate is None:
            yield (
                f"corpus[{index}].exclude_overlap_with: there is no section evaluate that says "
                "which questions; add one, or leave this out"
            )


def _evaluation_problems(recipe: Recipe) -> Iterator[str]:
    evaluate = recipe.evaluate
    if evaluate is None:
        return
    known = _all_models(recipe)
    for name in evaluate.models:
        if name not in known:
            yield _unknown("evaluate.models", "model", name, known)
    for index, ensemble in enumerate(evaluate.ensembles):
        for name in ensemble.models:
            if name not in evaluate.models:
                yield _unknown(
                    f"evaluate.ensembles[{index}]", "evaluated model", name, evaluate.models
                )
