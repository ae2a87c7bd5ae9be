"""Sketches tell how many runs of words two texts share, whatever their case and punctuation."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest

from biomistral.corpus import sketches
from biomistral.corpus.sketches import BINS, NO_WORDS, WIDTH, similarity, sketch


def words_of(count: int, seed: int = 1) -> list[str]:
    rng = random.Random(seed)
    return ["".join(rng.choices("abcdefgh", k=rng.randint(2, 6))) for _ in range(count)]


def edited(words: list[str], rate: float, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [f"edit{rng.randrange(10**6)}" if rng.random() < rate else word for word in words]


def shared_runs(first: list[str], second: list[str]) -> float:
    """The share of runs in common, counted."""
    a, b = (
        {tuple(words[i : i + WIDTH]) for i in range(len(words) - WIDTH + 1)}
        for words in (first, second)
    )
    return len(a & b) / len(a | b)


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.03, 0.1, 1.0])
def test_similarity_estimates_the_share_of_runs_in_common(rate: float) -> None:
    errors = []
    for seed in range(12):
        first = words_of(1500, seed)
        second = edited(first, rate, seed + 100)
        estimate = similarity(sketch(" ".join(first))[1], sketch(" ".join(second))[1])
        errors.append(float(estimate) - shared_runs(first, second))
    assert abs(float(np.mean(errors))) < 0.03  # 12 estimates of standard error 0.04
    assert max(map(abs, errors)) < 0.16


def test_bytes_that_are_equal_by_chance_are_taken_off() -> None:
    every = np.arange(256, dtype=np.uint8)
    assert float(similarity(every, np.zeros(256, np.uint8))) == pytest.approx(0)
    assert float(similarity(every, every)) == 1


@pytest.mark.parametrize("count", [1, 4, 5, 6, 40, 300])
def test_short_texts_are_like_themselves_and_like_no_other(count: int) -> None:
    own, other = (" ".join(words_of(count, seed)) for seed in (1, 2))
    assert float(similarity(sketch(own)[1], sketch(own + " !")[1])) == pytest.approx(1)
    assert float(similarity(sketch(own)[1], sketch(other)[1])) < 0.2


def test_case_punctuation_and_blanks_do_not_count() -> None:
    plain = sketch("the fever of the valley was gone by the evening")
    loud = sketch("The FEVER, of   the valley -- was\ngone; by the evening.")
    assert plain[0] == loud[0]
    assert (plain[1] == loud[1]).all()
    assert plain[0] != sketch("the fever of the valley was gone by the morning")[0]
    assert plain[0] != sketch("of the fever the valley was gone by the evening")[0]


def test_each_ideograph_is_a_word() -> None:
    first = "病人在早上接受了树皮治疗,发烧在第二天晚上消失了。" * 2
    assert sketch(first)[0] == sketch(first.replace(",", " "))[0]
    numbers = sketches._words("a病人b")
    assert len(numbers) == 4
    assert float(similarity(sketch(first)[1], sketch(first.replace("早", "晚"))[1])) > 0.3


def test_a_text_without_words_has_no_digest() -> None:
    for text in ("", "  \n", "... !?"):
        digest, runs = sketch(text)
        assert digest == NO_WORDS
        assert runs.shape == (BINS,)
    assert sketch("word")[0] != NO_WORDS


def test_words_are_those_of_a_regular_expression() -> None:
    text = "Ärzte gaben 2.5 mg/kg; naïve T-Zellen (n=12) — überlebten. α-Synuclein"
    assert len(sketches._words(text)) == len(re.findall(r"[^\W_]+", text))


def test_long_texts_are_hashed_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(words_of(3000))
    whole = sketch(text)
    monkeypatch.setattr(sketches, "_BLOCK_CHARACTERS", 700)
    parts = sketch(text)
    assert parts[0] == whole[0]
    assert (parts[1] == whole[1]).all()
    assert sketch("x" * 2000)[0] != sketch("x" * 2001)[0]  # no blank to cut at


def test_the_numbers_stay_what_they_are() -> None:
    """Corpora of earlier builds are compared with: a change needs a new step version."""
    digest, runs = sketch("The fever of the valley was gone by the evening of the second day.")
    assert (digest, runs[:5].tolist()) == (DIGEST, FIRST_BYTES)


DIGEST, FIRST_BYTES = 3310302977649966376, [161, 241, 22, 161, 141]
