"""Budgets and orders of languages, by numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from biomistral.corpus.selection import arrange, choose
from biomistral.recipe.corpora import LanguageMix

EN, FR, ES = 0, 1, 2


def corpus(english: int, french: int, spanish: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Documents of 10 tokens, languages mixed up."""
    languages = np.array([EN] * english + [FR] * french + [ES] * spanish, np.uint8)
    rng = np.random.default_rng(5)
    rng.shuffle(languages)
    draws = rng.integers(0, 2**63, len(languages), np.uint64)
    return languages, np.full(len(languages), 10), draws


def chosen_of(mix: LanguageMix, *counts: int) -> list[int]:
    languages, lengths, draws = corpus(*counts)
    chosen = choose(languages, lengths, draws, mix, EN)
    return np.bincount(languages[chosen], minlength=3).tolist()


@pytest.mark.parametrize(
    ("mix", "expected"),
    [
        (LanguageMix(), [800, 150, 50]),
        (LanguageMix(order="others_first"), [800, 150, 50]),
        (LanguageMix(tokens=5000), [400, 75, 25]),  # as read: every language gives alike
        (LanguageMix(order="others_first", tokens=5000), [300, 150, 50]),
        (LanguageMix(order="others_first", tokens=1000), [0, 75, 25]),
        (LanguageMix(order="others_first", tokens=5000, others_share=0.2), [400, 75, 25]),
        (LanguageMix(tokens=5000, others_share=0.2), [400, 75, 25]),
        (LanguageMix(others_share=0.2), [800, 150, 50]),  # they are a fifth as it is
        (LanguageMix(others_share=0.0), [800, 0, 0]),
        (LanguageMix(others_share=1.0), [800, 150, 50]),
        (LanguageMix(others_share=1 / 9), [800, 75, 25]),
        (LanguageMix(tokens=10**9), [800, 150, 50]),
        (LanguageMix(tokens=5000, temperature=1), [400, 75, 25]),
        (LanguageMix(tokens=10**9, temperature=3), [800, 150, 50]),
    ],
)
def test_documents_of_each_language(mix: LanguageMix, expected: list[int]) -> None:
    assert chosen_of(mix, 800, 150, 50) == pytest.approx(expected, abs=1)


def test_temperature_lifts_small_languages_and_takes_nothing_twice() -> None:
    # Square roots of 8000, 1500, 500 share 3000 as 1706, 739, 427... French and Spanish have more.
    roots = np.sqrt([8000, 1500, 500])
    expected = 3000 * roots / roots.sum()
    if expected[2] > 500:  # Spanish gives all, the rest is shared again
        rest = 2500 * roots[:2] / roots[:2].sum()
        expected = np.array([*rest, 500])
    found = chosen_of(LanguageMix(tokens=3000, temperature=2), 800, 150, 50)
    assert found == pytest.approx((expected / 10).tolist(), abs=1)


def test_a_smaller_budget_takes_a_part_of_a_larger_one() -> None:
    languages, lengths, draws = corpus(800, 150, 50)
    small, large = (
        choose(languages, lengths, draws, LanguageMix(tokens=tokens), EN) for tokens in (2000, 6000)
    )
    assert (large | ~small).all()
    assert small.sum() == pytest.approx(200, abs=3)


def test_what_is_chosen_does_not_depend_on_the_order_read() -> None:
    languages, lengths, draws = corpus(80, 15, 5)
    order = np.random.default_rng(9).permutation(100)
    mix = LanguageMix(tokens=500)
    here = choose(languages, lengths, draws, mix, EN)
    there = choose(languages[order], lengths[order], draws[order], mix, EN)
    assert (here[order] == there).all()


def test_others_first_lays_english_last_and_keeps_the_order_of_each() -> None:
    languages = np.array([EN, FR, EN, ES, FR], np.uint8)
    first, last = arrange(languages, LanguageMix(order="others_first"), EN)
    assert (first.tolist(), last.tolist()) == ([1, 3, 4], [0, 2])
    first, last = arrange(languages, LanguageMix(), EN)
    assert (first.tolist(), last.tolist()) == ([0, 1, 2, 3, 4], [])


def test_nothing_to_choose_from() -> None:
    empty = np.empty(0, np.int64)
    chosen = choose(
        empty.astype(np.uint8), empty, empty.astype(np.uint64), LanguageMix(tokens=5), EN
    )
    assert len(chosen) == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": 2.0}, "give tokens, too"),
        ({"temperature": 2.0, "tokens": 5, "others_share": 0.5}, "give one of them"),
    ],
)
def test_two_ways_to_share_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LanguageMix(**values)
