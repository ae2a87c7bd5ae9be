"""What questions will cost, before any is asked: an estimate, and the bound on it.

Knows nothing about what a server really charges, such as for kept prompts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from biomistral.errors import ModelError
from biomistral.recipe.endpoints import EndpointModel

CHARACTERS_PER_TOKEN = 4  # English in the vocabularies of today; other languages take more tokens
_MESSAGE_TOKENS = 8  # that a chat puts around a message, about

CountTokens = Callable[[str], int]


@dataclass(frozen=True)
class Estimate:
    """Of requests that are still to be sent."""

    num_requests: int
    num_prompt_tokens: int
    num_answer_tokens: int  # at most
    cost: float | None  # None without prices

    @property
    def words(self) -> str:
        """One line for a person."""
        tokens = f"{self.num_prompt_tokens:,} prompt and at most {self.num_answer_tokens:,}"
        cost = "unknown: no prices are set" if self.cost is None else f"about {self.cost:.2f}"
        return f"{self.num_requests:,} requests, about {tokens} answer tokens, cost {cost}"


def token_counter(settings: EndpointModel) -> CountTokens:
    """Count with the tokenizer of the settings, or a quarter of the characters."""
    if settings.tokenizer is None:
        return lambda text: -(-len(text) // CHARACTERS_PER_TOKEN)
    from biomistral.models.loading import load_tokenizer

    tokenizer = load_tokenizer(settings.tokenizer)
    return lambda text: len(tokenizer(text)["input_ids"])


def tokens_of(body: Mapping[str, Any], count: CountTokens) -> int:
    """Prompt tokens of one request."""
    if "prompt" in body:
        return count(body["prompt"])
    return sum(count(message["content"]) + _MESSAGE_TOKENS for message in body["messages"])


def answer_tokens(body: Mapping[str, Any], settings: EndpointModel) -> int:
    """Most tokens of its answer."""
    most = body.get("max_tokens", body.get("max_completion_tokens"))
    return most if isinstance(most, int) else settings.answer_tokens


def estimate(
    bodies: Iterable[Mapping[str, Any]], settings: EndpointModel, count: CountTokens
) -> Estimate:
    """Add up the tokens of requests and their price."""
    num_requests = num_prompt_tokens = num_answer_tokens = 0
    for body in bodies:
        num_requests += 1
        num_prompt_tokens += tokens_of(body, count)
        num_answer_tokens += answer_tokens(body, settings)
    cost = price(settings, num_prompt_tokens, num_answer_tokens)
    return Estimate(num_requests, num_prompt_tokens, num_answer_tokens, cost)


def price(settings: EndpointModel, num_prompt_tokens: int, num_answer_tokens: int) -> float | None:
    """Price of so many tokens; None without prices."""
    if settings.input_price is None or settings.output_price is None:
        return None
    in_millionths = num_prompt_tokens * settings.input_price
    return (in_millionths + num_answer_tokens * settings.output_price) / 1e6


def check(expected: Estimate, settings: EndpointModel) -> None:
    """Raise ``ModelError`` if the estimate is above the bound of the settings."""
    if settings.max_cost is not None and (expected.cost or 0.0) > settings.max_cost:
        raise ModelError(
            f"{settings.endpoint}: {expected.words}, which is above max_cost "
            f"{json.dumps(settings.max_cost)}; raise it, or ask fewer questions (limit, seeds, tasks)"
        )
