from __future__ import annotations

import pytest

from biomistral.errors import ModelError
from biomistral.models.endpoints import cost
from biomistral.recipe.endpoints import EndpointModel


def _settings(**changes):
    return EndpointModel(endpoint="http://host/v1", model="m", **changes)


def test_an_estimate_by_hand() -> None:
    settings = _settings(input_price=2.0, output_price=10.0)
    bodies = [{"prompt": "x" * 400, "max_tokens": 1}, {"prompt": "x" * 401, "max_tokens": 5}]
    found = cost.estimate(bodies, settings, cost.token_counter(settings))
    assert (found.num_requests, found.num_prompt_tokens, found.num_answer_tokens) == (2, 201, 6)
    assert found.cost == pytest.approx((201 * 2 + 6 * 10) / 1e6)


def test_without_prices_the_cost_is_unknown_and_never_zero() -> None:
    settings = _settings()
    found = cost.estimate([{"prompt": "x"}], settings, cost.token_counter(settings))
    assert found.cost is None
    assert "unknown" in found.words
    cost.check(found, settings)


def test_a_chat_counts_all_its_messages_and_what_is_around_them() -> None:
    messages = [{"content": "x" * 40}, {"content": "x" * 40}]
    assert cost.tokens_of({"messages": messages}, len) > 80


def test_a_tokenizer_counts_where_one_is_named(tiny_model) -> None:
    count = cost.token_counter(_settings(tokenizer=str(tiny_model)))
    assert 0 < count("the bark of a tree") < 40


def test_an_estimate_above_the_bound_is_refused() -> None:
    settings = _settings(input_price=1e6, output_price=0.0, max_cost=2.5)
    found = cost.estimate([{"prompt": "x" * 12}], settings, cost.token_counter(settings))
    with pytest.raises(ModelError, match=r"cost about 3\.00, which is above max_cost 2\.5"):
        cost.check(found, settings)
