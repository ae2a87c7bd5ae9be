"""Which token comes next: limits, seeds, penalties, and log-probabilities of the bare model."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers.generation import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from biomistral.errors import InputError, ModelError
from biomistral.models.sampling import Sampler, Sampling


def logits_of(size=50, seed=0, spread=3.0):
    return (np.random.default_rng(seed).normal(size=size) * spread).astype(np.float32)


def drawn(logits, number=4000, **settings):
    sampler = Sampler(Sampling(temperature=1.0, seed=0, **settings), [])
    return np.bincount(
        [sampler.choose(logits).token_id for _ in range(number)], minlength=len(logits)
    )


def test_without_temperature_the_most_probable_token_is_chosen():
    logits = logits_of()
    assert Sampler(Sampling(), []).choose(logits).token_id == int(logits.argmax())


def test_log_probabilities_are_of_the_bare_model():
    logits = logits_of()
    expected = torch.log_softmax(torch.from_numpy(logits).double(), dim=0)
    settings = Sampling(temperature=3.0, top_k=2, repetition_penalty=1.5, seed=1, logprobs=5)
    choice = Sampler(settings, [1, 2, 3]).choose(logits)
    assert choice.logprob == pytest.approx(float(expected[choice.token_id]), abs=1e-6)
    values, places = expected.topk(5)
    assert [index for index, _ in choice.top] == places.tolist()
    assert [logprob for _, logprob in choice.top] == pytest.approx(values.tolist(), abs=1e-6)


def test_draws_have_the_probabilities_of_the_softmax():
    logits = logits_of(6, spread=1.0)
    counts = drawn(logits)
    probabilities = np.exp(logits) / np.exp(logits).sum()
    spread = np.sqrt(4000 * probabilities * (1 - probabilities))
    assert (abs(counts - 4000 * probabilities) < 4 * spread).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"top_k": 7},
        {"top_p": 0.8},
        {"min_p": 0.1},
        {"top_k": 20, "top_p": 0.9},
        {"top_p": 0.95, "min_p": 0.02},
        {"top_k": 10, "top_p": 0.9, "min_p": 0.05},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [50, 3000])
def test_the_tokens_in_the_running_are_those_of_transformers(settings, size):
    logits = logits_of(size, seed=4, spread=1.5)
    warpers = LogitsProcessorList([TemperatureLogitsWarper(1.3)])
    if "top_k" in settings:
        warpers.append(TopKLogitsWarper(settings["top_k"]))
    if "top_p" in settings:
        warpers.append(TopPLogitsWarper(settings["top_p"]))
    if "min_p" in settings:
        warpers.append(MinPLogitsWarper(settings["min_p"]))
    scores = warpers(torch.zeros(1, 1, dtype=torch.long), torch.from_numpy(logits.copy())[None])[0]
    allowed = set(torch.isfinite(scores).nonzero()[:, 0].tolist())
    from biomistral.models.sampling import _kept

    kept, weights = _kept(logits, Sampling(temperature=1.3, **settings))
    assert set(kept.tolist()) == allowed
    expected = torch.softmax(scores.double(), dim=0).numpy()[kept]
    np.testing.assert_allclose(weights / weights.sum(), expected, rtol=1e-5)


def test_a_penalty_does_what_it_does_in_transformers():
    logits = logits_of()
    prompt = [int(logits.argmax()), 3, 4]
    penalized = RepetitionPenaltyLogitsProcessor(4.0)(
        torch.tensor([prompt]), torch.from_numpy(logits.copy())[None]
    )[0]
    choice = Sampler(Sampling(repetition_penalty=4.0), prompt).choose(logits)
    assert choice.token_id == int(penalized.argmax())
    assert choice.token_id != int(logits.argmax())


def test_a_penalty_makes_an_improbable_token_more_so():
    logits = np.array([-1.0, -1.5], dtype=np.float32)
    choice = Sampler(Sampling(repetition_penalty=2.0), [0]).choose(logits)
    assert choice.token_id == 1


def test_what_was_generated_is_penalized_too():
    logits = np.array([3.0, 2.9, 0.0], dtype=np.float32)
    sampler = Sampler(Sampling(repetition_penalty=2.0), [])
    assert [sampler.choose(logits).token_id for _ in range(2)] == [0, 1]


def test_a_seed_repeats_and_no_seed_does_not():
    logits = logits_of(1000, spread=0.1)

    def draws(seed):
        sampler = Sampler(Sampling(temperature=1.0, seed=seed), [])
        return [sampler.choose(logits).token_id for _ in range(8)]

    assert draws(5) == draws(5)
    assert draws(5) != draws(6)
    assert draws(None) != draws(None)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_is_refused(value):
    logits = logits_of()
    logits[7] = value
    with pytest.raises(ModelError, match="for the next token; its weights are broken"):
        Sampler(Sampling(), []).choose(logits)


def test_tokens_ruled_out_by_the_model_are_never_drawn():
    logits = np.array([0.0, -np.inf, 0.0], dtype=np.float32)
    assert drawn(logits, number=100)[1] == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0; allowed is 1 or more"),
        ({"temperature": -0.1}, "temperature is -0.1; allowed is 0 to 100"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"top_p": 0.0}, "top_p is 0.0; allowed is above 0, at most 1"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"top_k": -1}, "top_k is -1"),
        ({"min_p": 2.0}, "min_p is 2.0; allowed is 0 to 1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0; allowed is above 0"),
        ({"seed": -1}, "seed is -1"),
        ({"logprobs": 101}, "logprobs is 101; allowed is 0 to 100"),
        ({"stop": ("",)}, r"stop is \('',\); wanted are texts of one character or more"),
        ({"stop": "END"}, "stop is 'END'; wanted are texts"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Sampling(**settings)
