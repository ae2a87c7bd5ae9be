"""Which documents enter where there is a budget, and in which order, by language.

Works on numbers only: a language, a length in tokens and a draw per document. A draw is a number
that chance has given a document for good; where not all of a language enter, those of the least
draws do, so that a budget takes a fair sample and a smaller budget takes a part of a larger one.
Knows nothing about texts or files.

Shapes: N documents.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from biomistral.recipe.corpora import LanguageMix

Places = NDArray[np.int64]


def choose(
    languages: NDArray[np.uint8],
    lengths: NDArray[np.int64],
    draws: NDArray[np.uint64],
    mix: LanguageMix,
    english: int,
) -> NDArray[np.bool_]:
    """Say of each document whether it enters.  # all (N,).

    ``english`` is the number that stands for English in ``languages``.
    """
    # Tokens of each language; exact below 2^53.
    found = np.bincount(languages, weights=lengths, minlength=256).astype(np.float64)
    chosen = np.zeros(len(lengths), np.bool_)
    for language, most in enumerate(_budgets(found, mix, english)):
        if most > 0:
            places = np.flatnonzero(languages == language)
            if most < found[language]:
                places = _sample(places, lengths, draws, most)
            chosen[places] = True
    return chosen


def arrange(languages: NDArray[np.uint8], mix: LanguageMix, english: int) -> tuple[Places, Places]:
    """Two parts of the documents, each in the order given, to be laid out one after the other.

    With ``others_first`` the first has all languages but English; otherwise it has everything.
    """
    if mix.order == "as_read":
        return np.arange(len(languages)), np.empty(0, np.int64)
    is_english = languages == english
    return np.flatnonzero(~is_english), np.flatnonzero(is_english)


def _budgets(found: NDArray[np.float64], mix: LanguageMix, english: int) -> NDArray[np.float64]:
    """Most tokens of each language."""
    total = min(found.sum(), mix.tokens if mix.tokens is not None else np.inf)
    if mix.temperature is not None:
        return _by_temperature(found, total, mix.temperature)
    others = found.sum() - found[english]
    most_others = min(others, total if mix.others_share is None else mix.others_share * total)
    if mix.tokens is None and mix.others_share is not None:
        # No budget: all English enters, and the others make up their share of the whole.
        share = mix.others_share
        most_others = others if share >= 1 else min(others, found[english] * share / (1 - share))
        total = found[english] + most_others
    if mix.order == "as_read" and mix.others_share is None:
        budgets: NDArray[np.float64] = found * (total / max(found.sum(), 1))
        return budgets
    budgets = found * (most_others / max(others, 1))
    budgets[english] = total - most_others
    return budgets


def _by_temperature(
    found: NDArray[np.float64], total: float, temperature: float
) -> NDArray[np.float64]:
    """Shares proportional to size^(1 / temperature); nothing is taken twice.

    What a small language cannot give is shared among the others in the same proportion.
    """
    weights = np.where(found > 0, np.power(found, 1 / temperature), 0.0)
    budgets = np.zeros_like(found)
    open_ = found > 0
    while open_.any():
        room = total - budgets[~open_].sum()
        wanted = weights * (room / weights[open_].sum())
        full = open_ & (wanted >= found * (1 - 1e-9))  # rounding takes nothing away
        if not full.any():
            budgets[open_] = wanted[open_]
            break
        budgets[full] = found[full]
        open_ &= ~full
    return budgets


def _sample(
    places: Places, lengths: NDArray[np.int64], draws: NDArray[np.uint64], most: float
) -> Places:
    """Documents by rising draw, as many as fit."""
    order = places[np.lexsort((places, draws[places]))]
    sample: Places = order[np.cumsum(lengths[order]) <= most]
    return sample
