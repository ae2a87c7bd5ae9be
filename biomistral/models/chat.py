"""A message in the chat template of a model. Knows nothing about what the message says.

Control tokens that the template writes are marked (``control_tokens``); the same characters in the
message are text. A template that changes the message, more than by taking blanks off its ends, is
refused: what is text and what is not could then not be told apart.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from biomistral.errors import ModelError
from biomistral.models.control_tokens import mark_all
from biomistral.models.loading import load_tokenizer

_PLACEHOLDER = "\ufdd2"  # a character that no text and no template has


def message_renderer(model: Path | str, revision: str | None = None) -> Callable[[str], str]:
    """Return a function from a user's message to the prompt that ends where the answer begins.

    Where the opening token (``<s>``) is the only control token, it is left out: a tokenizer puts it in
    front by itself. All others are marked.

    Raises ``ModelError`` if the model has no chat template, or one that fails or changes the message.
    """
    tokenizer = load_tokenizer(model, revision)
    if not tokenizer.chat_template:
        raise ModelError(
            f"{model}: its tokenizer has no chat template; evaluate an instruct model, or use the "
            "template biomistral or meditron"
        )
    before, sign, after = _apply(model, tokenizer, _PLACEHOLDER).partition(_PLACEHOLDER)
    if not sign or _PLACEHOLDER in after:
        raise _changes(model)
    marked = _marked(tokenizer, before, after)

    def render(message: str) -> str:
        written = _apply(model, tokenizer, message)
        for kept in (message, message.strip()):  # many templates cut blanks at the ends
            if written == before + kept + after:
                return marked[0] + kept + marked[1]
        raise _changes(model)

    return render


def _apply(model: Path | str, tokenizer: Any, message: str) -> str:
    messages = [{"role": "user", "content": message}]
    try:
        text: str = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
    except TemplateError as error:
        raise ModelError(f"{model}: its chat template fails ({error})") from None
    return text


def _marked(tokenizer: Any, before: str, after: str) -> tuple[str, str]:
    """What stands around a message, with its control tokens marked."""
    tokens = list(tokenizer.get_added_vocab())
    bare = before.removeprefix(tokenizer.bos_token or "")
    marked = mark_all(bare, tokens), mark_all(after, tokens)
    if marked == (bare, after):
        return bare, after
    return mark_all(before, tokens), marked[1]


def _changes(model: Path | str) -> ModelError:
    return ModelError(
        f"{model}: its chat template changes the message that it is given, or repeats it; use the "
        "template biomistral or meditron"
    )
