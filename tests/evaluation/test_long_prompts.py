from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest

from biomistral.errors import ModelError
from biomistral.evaluation.long_prompts import fit
from biomistral.records import Request


class Words:
    """An engine whose tokens are words."""

    context_tokens = 6

    def too_long(self, requests: Sequence[Request]) -> dict[int, int]:
        lengths = {i: len(request.prompt.split()) for i, request in enumerate(requests)}
        return {i: length for i, length in lengths.items() if length > self.context_tokens}


def build(shots: int) -> list[Request]:
    """Three questions of 1, 3 and 5 words behind examples of 1 word; two seeds if there are any."""
    return [
        Request(
            f"q{words}", "plants", "en", shots, seed, "letter",
            " ".join([f"shot{seed}"] * shots + ["word"] * words), ("A", "B"), 0,
        )
        for seed in ((1, 2) if shots else (1,))
        for words in (1, 3, 5)
    ]  # fmt: skip


def test_what_fits_stays_as_it_is():
    for rule in ("refuse", "drop_shots", "skip"):
        assert fit(build(1), Words(), rule, build).requests == build(1)


def test_refusing_names_the_first_and_counts_all():
    with pytest.raises(
        ModelError,
        match=r"question 'q5' of plants \(en\): its prompt with 3 .* is 8 tokens, the model's "
        r"context is 6 \(2 of 6 prompts are too long\); use fewer shots, or long_prompts",
    ):
        fit(build(3), Words(), "refuse", build)


def test_shots_are_dropped_where_needed_and_no_more_than_needed():
    fitted = fit(build(3), Words(), "drop_shots", build)
    lengths = [request.prompt.count("shot") for request in fitted.requests]
    assert lengths == [3, 3, 1, 3, 3, 1]
    assert fitted.shortened == 2
    assert fitted.requests[5].prompt == "shot2 word word word word word"
    assert {request.shots for request in fitted.requests} == {3}  # still one cell


def test_all_shots_may_be_dropped_and_the_seed_stays():
    class Five(Words):
        context_tokens = 5

    fitted = fit(build(3), Five(), "drop_shots", build)
    assert fitted.requests[5] == dataclasses.replace(build(0)[2], seed=2, shots=3)


def test_a_question_is_never_cut():
    class Four(Words):
        context_tokens = 4

    with pytest.raises(
        ModelError, match=r"'q5'.* with 0 worked examples .* is 5 tokens.*long_prompts: skip"
    ):
        fit(build(3), Four(), "drop_shots", build)


def test_skipped_questions_are_listed_and_the_rest_keeps_its_order():
    fitted = fit(build(3), Words(), "skip")
    assert fitted.skipped == ("plants/en/q5",)
    assert [request.question_id for request in fitted.requests] == ["q1", "q3", "q1", "q3"]


def test_what_is_too_long_with_one_seed_is_skipped_with_all():
    asked = [r if r.seed == 1 else dataclasses.replace(r, prompt="word") for r in build(3)]
    fitted = fit(asked, Words(), "skip")
    assert [request.question_id for request in fitted.requests] == ["q1", "q3", "q1", "q3"]
