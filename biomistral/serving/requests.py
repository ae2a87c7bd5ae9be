"""What clients send: the bodies of OpenAI's interface, as far as they are answered here.

A field that would change the answer and cannot be followed is refused, and so is one that is unknown:
an option without effect misleads. Fields that say nothing about the answer (``user``, ``metadata``)
are taken and left alone. Beyond OpenAI's there are, with the names that vLLM gives them, ``top_k``,
``min_p``, ``repetition_penalty`` and ``ignore_eos``.

Knows nothing about tokens or models.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from biomistral.models.sampling import Sampling
from biomistral.records import LETTERS

MOST_TOPS = 20
MOST_STOPS = 16
MOST_ANSWERS = 128

TokenId = Annotated[int, Field(ge=0)]
Ids = Annotated[list[TokenId], Field(min_length=1)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _characters(cls, value: Any) -> Any:
        """JSON can write halves of characters, which no text has and no tokenizer takes."""
        try:
            json.dumps(value, ensure_ascii=False, default=str).encode()
        except UnicodeEncodeError as error:
            half = error.object[error.start]
            raise ValueError(f"the body has half a character ({half!a}) in a text") from None
        return value


class StreamOptions(_Body):
    """What a stream has besides the answer."""

    include_usage: bool = False
    include_obfuscation: bool = False


class _Sampled(_Body):
    """What completions and chats have in common."""

    model: str | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: int = Field(1, ge=1, le=MOST_ANSWERS)
    temperature: float | None = Field(None, ge=0, le=100, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1)  # -1: all, as vLLM says it
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=100)
    seed: int | None = None
    stop: str | list[str] | None = None
    ignore_eos: bool = False

    # Taken, and without meaning for the answer.
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    # Refused unless they say what is done anyway.
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None

    @field_validator("frequency_penalty", "presence_penalty")
    @classmethod
    def _none(cls, value: float | None) -> float | None:
        if value:
            raise ValueError("is not supported; leave it out, or use repetition_penalty")
        return value

    @field_validator("logit_bias")
    @classmethod
    def _empty(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        if value:
            raise ValueError("is not supported; leave it out")
        return value

    @field_validator("stop")
    @classmethod
    def _stops(cls, value: str | list[str] | None) -> list[str]:
        texts = [value] if isinstance(value, str) else value or []
        if len(texts) > MOST_STOPS or not all(texts):
            raise ValueError(f"wanted are at most {MOST_STOPS} texts, none of them empty")
        return texts

    @model_validator(mode="after")
    def _options_of_a_stream(self) -> _Sampled:
        if self.stream_options and not self.stream:
            raise ValueError("stream_options: has no effect without stream: true")
        return self

    def sampling(self, max_new_tokens: int, logprobs: int, index: int) -> Sampling:
        """How answer ``index`` of several is drawn; with a seed each has one of its own."""
        return Sampling(
            max_new_tokens=max_new_tokens,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=max(0, self.top_k or 0),
            min_p=self.min_p or 0.0,
            repetition_penalty=self.repetition_penalty or 1.0,
            seed=None if self.seed is None else (self.seed + index) % 2**63,
            stop=tuple(self.stop or ()),
            logprobs=logprobs,
            ignore_eos=self.ignore_eos,
        )

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with the number of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage


class CompletionBody(_Sampled):
    """``POST /v1/completions``."""

    prompt: str | Ids | list[str] | list[Ids]
    max_tokens: int | None = Field(16, ge=0)
    logprobs: int | None = Field(None, ge=0, le=MOST_TOPS)
    echo: bool = False
    best_of: int | None = None
    suffix: str | None = None

    @field_validator("prompt", mode="wrap")
    @classmethod
    def _prompt(cls, value: Any, read: ValidatorFunctionWrapHandler) -> Any:
        try:
            found = read(value)
        except ValidationError:
            found = None
        if not found and found != "":
            raise ValueError(
                "wanted is a text, a list of texts, a list of token ids (0 or more), or a list of "
                "such lists, none of them empty"
            )
        return found

    @field_validator("suffix")
    @classmethod
    def _no_suffix(cls, value: str | None) -> str | None:
        if value:
            raise ValueError("is not supported; leave it out")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> CompletionBody:
        if self.best_of not in {None, self.n}:
            raise ValueError("best_of: is not supported; leave it out")
        if not self.max_tokens and not self.echo and self.max_tokens is not None:
            raise ValueError("max_tokens: 0 asks for nothing; allowed is 0 with echo: true only")
        if self.echo and self.stream:
            raise ValueError("echo: is not supported in a stream; set stream: false")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, each a text or token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [[int(token) for token in self.prompt]]
        return list(self.prompt)


class TextPart(_Body):
    """A part of a message."""

    type: Literal["text"]
    text: str


class Message(_Body):
    """A message of a chat."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None
    refusal: None = None  # clients send back the messages they got

    @field_validator("content", mode="wrap")
    @classmethod
    def _content(cls, value: Any, read: ValidatorFunctionWrapHandler) -> Any:
        try:
            return read(value)
        except ValidationError:
            raise ValueError(
                'wanted is a text, or a list of parts {"type": "text", "text": ...}; images, sound and '
                "files are not taken"
            ) from None

    def as_text(self) -> dict[str, str]:
        """Role and text, as chat templates want it."""
        content = self.content
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ResponseFormat(_Body):
    """Only text is given."""

    type: Literal["text"]


class ChatBody(_Sampled):
    """``POST /v1/chat/completions``."""

    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=MOST_TOPS)
    response_format: ResponseFormat | None = None
    tools: list[Any] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None

    @field_validator("tools")
    @classmethod
    def _no_tools(cls, value: list[Any] | None) -> list[Any] | None:
        if value:
            raise ValueError("are not supported; leave them out")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> ChatBody:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs: has no effect without logprobs: true")
        return self

    @property
    def most_tokens(self) -> int | None:
        """Most tokens of the answer; None: as many as fit."""
        return self.max_completion_tokens or self.max_tokens


class ChoicesBody(_Body):
    """``POST /v1/choices``: a prompt that the options continue, or a question to put in words."""

    model: str | None = None
    prompt: str | None = Field(None, min_length=1)
    question: str | None = Field(None, min_length=1)
    context: str = ""
    options: list[str] = Field(min_length=2, max_length=len(LETTERS))
    scoring: Literal["letter", "cloze"] = "letter"
    language: str = "en"
    task: str | None = None  # for which calibration was fitted; default: any of the group
    group: str = "medical"  # of tasks
    shots: int = Field(0, ge=0)  # worked examples in the prompt, for the calibration
    calibration: Literal["temperature", "platt", "none"] | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> ChoicesBody:
        if (self.prompt is None) == (self.question is None):
            raise ValueError(
                "give either prompt (with options that continue it) or question (with the choices)"
            )
        if self.context and self.prompt is not None:
            raise ValueError("context: goes with question; a prompt has it already")
        if not all(option.strip() for option in self.options):
            raise ValueError("options: one is empty")
        return self
