"""Planted copies are found, others are not, and the first is kept."""

from __future__ import annotations

import random

import numpy as np
import pytest

from biomistral.corpus.duplicates import REASONS, find_duplicates
from biomistral.corpus.shards import KEPT
from biomistral.corpus.sketches import sketch

RATES = (0.0, 0.005, 0.01, 0.03, 0.2)
COPIES = 20  # of each rate


def planted() -> tuple[list[str], dict[int, tuple[int, float]]]:
    """Invented articles of 400 to 2,500 words of a common vocabulary, then copies: of whom, edited how much."""
    rng = random.Random(3)
    letters = "abcdefghijklmnop"
    vocabulary = ["".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(3000)]
    weights = [1 / (rank + 1) for rank in range(len(vocabulary))]
    originals = [rng.choices(vocabulary, weights, k=rng.randint(400, 2500)) for _ in range(120)]
    texts = [" ".join(words) for words in originals]
    copies = {}
    for rate in RATES:
        for which in rng.sample(range(len(originals)), COPIES):
            words = [rng.choice(vocabulary) if rng.random() < rate else w for w in originals[which]]
            copies[len(texts)] = (which, rate)
            texts.append(" ".join(words))
    return texts, copies


@pytest.fixture(scope="module")
def corpus():
    texts, copies = planted()
    pairs = [sketch(text) for text in texts]
    digests = np.array([digest for digest, _ in pairs], np.uint64)
    return digests, np.stack([runs for _, runs in pairs]), copies


def ids_of(count: int) -> np.ndarray:
    return np.zeros(count, np.uint64)


def test_planted_copies_are_found_and_nothing_else(corpus) -> None:
    digests, sketches, copies = corpus
    verdicts = find_duplicates(ids_of(len(digests)), digests, sketches, 0.65)
    found = dict.fromkeys(RATES, 0)
    for place, (original, rate) in copies.items():
        if verdicts.codes[place]:
            found[rate] += 1
            same = {p for p, (o, _) in copies.items() if o == original} | {original}
            assert int(verdicts.kept[place]) in same
    assert [found[rate] for rate in (0.0, 0.005, 0.01)] == [COPIES] * 3
    assert found[0.03] >= 0.75 * COPIES
    assert found[0.2] == 0  # these are other texts, and none of them is flagged
    assert not verdicts.codes[: min(copies)].any()


def test_an_exact_copy_is_told_from_a_near_one(corpus) -> None:
    digests, sketches, copies = corpus
    verdicts = find_duplicates(ids_of(len(digests)), digests, sketches, 0.65)
    for place, (_, rate) in copies.items():
        if rate == 0.0:
            assert REASONS[verdicts.codes[place]] == "duplicate"
        if rate == 0.01:
            assert REASONS[verdicts.codes[place]] == "near_duplicate"


def test_the_first_in_the_order_given_is_kept(corpus) -> None:
    digests, sketches, _ = corpus
    order = np.arange(len(digests))[::-1]
    verdicts = find_duplicates(ids_of(len(digests)), digests[order], sketches[order], 0.65)
    assert (verdicts.kept <= np.arange(len(digests))).all()
    assert (verdicts.codes[verdicts.kept] == 0).all()
    kept = verdicts.codes == 0
    assert (verdicts.kept[kept] == np.flatnonzero(kept)).all()


def test_without_a_threshold_only_equal_words_count(corpus) -> None:
    digests, sketches, copies = corpus
    verdicts = find_duplicates(ids_of(len(digests)), digests, sketches, None)
    flagged = np.flatnonzero(verdicts.codes)
    assert {copies[int(place)][1] for place in flagged} == {0.0}


def test_articles_with_one_id_are_one_article() -> None:
    sketches = np.random.default_rng(1).integers(0, 256, (5, 150), np.uint8)
    digests = np.arange(1, 6, dtype=np.uint64)
    ids = np.array([7, 0, 7, 0, 8], np.uint64)  # 0: says nothing
    verdicts = find_duplicates(ids, digests, sketches, 0.65)
    assert [REASONS[code] for code in verdicts.codes] == ["", "", "same_article", "", ""]
    assert verdicts.kept.tolist() == [0, 1, 0, 3, 4]


def test_texts_without_words_are_no_duplicates_of_each_other() -> None:
    sketches = np.zeros((3, 150), np.uint8)
    verdicts = find_duplicates(ids_of(3), ids_of(3), sketches, 0.65)
    assert not verdicts.codes.any()


def test_what_is_tied_through_others_is_tied() -> None:
    """a ~ b and b ~ c: one of the three is kept, though a and c are not alike."""
    rng = np.random.default_rng(2)
    a = rng.integers(0, 256, 150).astype(np.uint8)
    b, c = a.copy(), a.copy()
    b[:40] += 1
    c[:40] += 1
    c[110:] += 1
    digests = np.array([1, 2, 3], np.uint64)
    verdicts = find_duplicates(ids_of(3), digests, np.stack([a, b, c]), 0.65)
    assert verdicts.kept.tolist() == [0, 0, 0]
    far = find_duplicates(ids_of(2), digests[:2], np.stack([a, c]), 0.65)
    assert far.kept.tolist() == [0, 1]


def test_no_documents_are_no_trouble() -> None:
    verdicts = find_duplicates(ids_of(0), ids_of(0), np.zeros((0, 150), np.uint8), 0.65)
    assert len(verdicts.codes) == 0


def test_the_state_is_less_than_300_bytes_a_document() -> None:
    assert KEPT.itemsize <= 300
