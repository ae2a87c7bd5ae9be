"""Which settings of an entry decide what its step makes, and which only how it is made.

Pure: from settings to JSON values of a fingerprint. Knows nothing about the order of steps.
"""

from __future__ import annotations

from typing import Any

from biomistral.recipe import links
from biomistral.recipe.settings import (
    AwqQuantization,
    CorpusSettings,
    DareMerge,
    PretrainSettings,
)

# Settings that say how hard a machine works and not what comes out, to the last bit.
WITHOUT_EFFECT = {"save_every_steps", "keep_checkpoints", "tensorboard", "wandb"}
# Of an evaluation, those that say which questions and models; all others decide the answers.
NOT_OF_ANSWERS = {
    "models",
    "tasks",
    "languages",
    "limit",
    "ensembles",
    "find_overlap",
    "distances",
    "cost",
    "calibration",
    "shown_texts",
}
# Of a corpus, those that decide its texts: all that a tokenizer trained on it depends on.
_OF_TEXTS = {
    *("text_column", "keep", "licences", "article_types", "languages"),
    *("minimum_words", "quality", "exclude_overlap_with"),
}


def of_corpus(settings: CorpusSettings) -> dict[str, Any]:
    """Settings of a corpus, without an option that is not used: older corpora stay as they are.

    Nor where its files lie: they count by their names and bytes, so that data may be moved.
    """
    unused = set() if settings.exclude_overlap_with else {"exclude_overlap_with"}
    return settings.model_dump(mode="json", exclude={"articles", "texts", *unused})


def of_texts(settings: CorpusSettings) -> dict[str, Any]:
    """Settings of a corpus that decide its texts."""
    return {key: value for key, value in of_corpus(settings).items() if key in _OF_TEXTS}


def uses_run_seed(settings: CorpusSettings | links.ModelEntry) -> bool:
    """Whether the recipe's seed has a say: something is drawn, and no seed of its own is given."""
    if isinstance(settings, CorpusSettings):
        mix = settings.language_mix
        return (
            settings.held_out_fraction > 0 or mix.tokens is not None or mix.others_share is not None
        )
    if isinstance(settings, PretrainSettings | DareMerge):
        return settings.seed is None
    return isinstance(settings, AwqQuantization)
