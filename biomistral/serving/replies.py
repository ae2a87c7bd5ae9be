"""What clients get: the replies of OpenAI's interface. Pure: made of what an engine gave.

Each token's alternatives are the most probable ones, with the token itself where it is not among
them. In the old form (completions) they are a table by text; of two tokens with one text the
likelier stands in it.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from biomistral.advisory import ADVISORY
from biomistral.serving.tokens import TokenTexts, text_of

Tops = Sequence[tuple[int, float]]
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a text, with its log-probability and the likeliest ones at its place."""

    id: int
    logprob: float | None
    top: Tops = ()


@dataclass(slots=True)
class Answer:
    """One answer in the making."""

    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    finish: str | None = None

    def add(self, text: str, token: Token | None, finish: str | None) -> None:
        """Add what comes next."""
        self.text += text
        if token is not None:
            self.tokens.append(token)
        self.finish = finish or self.finish


@dataclass(frozen=True, slots=True)
class Head:
    """What all parts of one reply begin with."""

    id: str
    object: str
    created: int
    model: str

    def body(self, choices: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
        """One reply, or one part of a stream."""
        return {
            "id": self.id,
            "object": self.object,
            "created": self.created,
            "model": self.model,
            "choices": list(choices),
            **more,
        }


def head(prefix: str, kind: str, model: str) -> Head:
    """Begin a reply."""
    return Head(f"{prefix}-{secrets.token_hex(12)}", kind, int(time.time()), model)


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """Numbers of tokens."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def event(body: Mapping[str, Any]) -> bytes:
    """One part of a stream, as a server-sent event."""
    return (
        b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
    )


def model_card(name: str, created: int, context_tokens: int | None, **facts: Any) -> dict[str, Any]:
    """One line of the listing of models."""
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "biomistral",
        "max_model_len": context_tokens,
        "advisory": ADVISORY,
        **facts,
    }


# --- log-probabilities ----------------------------------------------------------------------------


def old_logprobs(
    texts: TokenTexts,
    tokens: Sequence[Token],
    num_tops: int,
    *,
    start: int = 0,
    echoed: bool = False,
) -> dict[str, list[Any]]:
    """The form of completions. ``start``: place in the text at which the first token begins."""
    offsets = texts.offsets([token.id for token in tokens], begins_text=echoed)
    return {
        "tokens": [texts.text(token.id) for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [_table(texts, token, num_tops) for token in tokens],
        "text_offset": [start + offset for offset in offsets],
    }


def chat_logprobs(texts: TokenTexts, tokens: Iterable[Token], num_tops: int) -> dict[str, Any]:
    """The form of chats."""
    content = [
        {
            **_shown(texts, token.id, token.logprob),
            "top_logprobs": [_shown(texts, i, value) for i, value in token.top[:num_tops]],
        }
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def _table(texts: TokenTexts, token: Token, num_tops: int) -> dict[str, float] | None:
    if token.logprob is None:
        return None
    table: dict[str, float] = {}
    for index, value in token.top[:num_tops]:
        table.setdefault(texts.text(index), value)
    table.setdefault(texts.text(token.id), token.logprob)
    return table


def _shown(texts: TokenTexts, token: int, logprob: float | None) -> dict[str, Any]:
    raw = texts.raw(token)
    return {"token": text_of(raw), "logprob": logprob, "bytes": list(raw)}
