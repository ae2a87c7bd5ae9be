"""A user's message in the form that a chat model was trained on: its tokenizer's chat template.

The text comes without the opening token (``<s>``), which encoding puts in front by itself. Text is
encoded as text here, so a template that writes control tokens (``<|im_start|>``) is refused: its
prompt would not be what the model knows. That of Mistral Instruct (``[INST] ... [/INST]``) writes
none. Knows nothing about what the message says.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from biomistral.errors import ModelError

_PROBE = "bark and rest"


def chat_prompt(model: str | Path, revision: str | None = None) -> Callable[[str], str]:
    """Return a function: message -> prompt that ends where the answer begins.

    Raises ``ModelError`` if the tokenizer has no chat template, or one with control tokens.
    """
    from biomistral.models.loading import load_tokenizer

    tokenizer = load_tokenizer(model, revision)
    if not getattr(tokenizer, "chat_template", None):
        raise ModelError(
            f"{model}: its tokenizer has no chat template; use another template of prompts"
        )
    probe = _render(tokenizer, _PROBE)
    control = [token for token in tokenizer.all_special_tokens if token in probe]
    if control:
        raise ModelError(
            f"{model}: its chat template writes the control tokens {control}, which prompts here "
            "cannot hold; use another template of prompts"
        )
    return lambda message: _render(tokenizer, message)


def _render(tokenizer: Any, message: str) -> str:
    text: str = tokenizer.apply_chat_template(
        [{"role": "user", "content": message}], tokenize=False, add_generation_prompt=True
    )
    return text.removeprefix(tokenizer.bos_token or "").lstrip(" ")
