"""The settings of a model behind an OpenAI-compatible endpoint: it answers, and is nothing more.

Knows nothing about how it is asked.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from biomistral import artifacts
from biomistral.recipe.fields import Settings


class EndpointModel(Settings):
    """A served model that can be evaluated, and neither trained, merged nor quantized."""

    # What its answers depend on; all else says how it is reached, how fast, and for how much.
    OF_ANSWERS: ClassVar[frozenset[str]] = frozenset(
        {"endpoint", "model", "api", "system", "answer_tokens", "top_logprobs", "parameters"}
    )

    endpoint: str = Field(
        description="Address of the API up to and with /v1, such as https://api.openai.com/v1."
    )
    model: str = Field(min_length=1, description="Name of the model at the endpoint.")
    api: Literal["auto", "completions", "chat"] = Field(
        "auto",
        description="Which of the two ways to ask; auto takes the one that gives log-probabilities.",
    )
    key_variable: str = Field(
        "OPENAI_API_KEY",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$",
        description="Environment variable with the key; the key itself stands in no file.",
    )
    system: str = Field(
        "Answer with the letter of the right choice and nothing else.",
        description="System message, for chat only; empty: none.",
    )
    answer_tokens: int = Field(
        16, ge=1, le=4096, description="Most tokens of an answer that is given in words."
    )
    top_logprobs: int = Field(
        20, ge=0, le=100, description="Most probable tokens asked for; 0: read the answer's words."
    )
    parameters: dict[str, Any] = Field(
        default_factory=dict,
        description="Further parameters of each request; null takes one away that is set here.",
    )
    concurrency: int = Field(8, ge=1, le=256, description="Requests under way at a time.")
    timeout_seconds: float = Field(60.0, gt=0, description="Longest wait for one answer.")
    retries: int = Field(6, ge=0, le=20, description="How often a request that failed is repeated.")
    requests_per_minute: float | None = Field(None, gt=0, description="Bound of the server.")
    tokens_per_minute: float | None = Field(None, gt=0, description="Bound of the server.")
    context_tokens: int | None = Field(
        None, ge=16, description="Longest prompt that the server takes; longer ones are not sent."
    )
    tokenizer: str | None = Field(
        None,
        description="Model folder or hub id whose tokenizer counts tokens for the estimate of cost; "
        "by default four characters are one token.",
    )
    input_price: float | None = Field(None, ge=0, description="Price of a million prompt tokens.")
    output_price: float | None = Field(None, ge=0, description="Price of a million answer tokens.")
    max_cost: float | None = Field(
        None, gt=0, description="Refuse to start above this estimate, and stop when it is spent."
    )

    def of_answers(self) -> dict[str, Any]:
        """The settings that answers depend on, as JSON values."""
        return self.model_dump(mode="json", include=set(self.OF_ANSWERS))

    def digest(self) -> str:
        """Of what is asked, and not of how fast or by which key."""
        return artifacts.digest_of(self.of_answers())

    @field_validator("endpoint")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        parts = urlsplit(value)
        # The address is written down with the results; whatever may be secret stays out of it.
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError(
                "must be an address without name, password or query; name the environment "
                "variable that holds the key in key_variable"
            )
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"{value!r} is no address like https://host/v1")
        return value.rstrip("/")

    @field_validator("parameters")
    @classmethod
    def _leaves_the_question(cls, value: dict[str, Any]) -> dict[str, Any]:
        fixed = {"model", "prompt", "messages", "logprobs", "top_logprobs", "echo", "n", "stream"}
        if wrong := sorted(fixed & set(value)):
            raise ValueError(f"{', '.join(wrong)} cannot be set here: the evaluation sets it")
        return value

    @model_validator(mode="after")
    def _a_bound_needs_prices(self) -> EndpointModel:
        if self.max_cost is not None and (self.input_price is None or self.output_price is None):
            raise ValueError("max_cost needs input_price and output_price")
        return self
