"""A message in the chat template of a model. Knows nothing about what the message says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jinja2 import TemplateError

from biomistral.errors import ModelError
from biomistral.models.loading import load_tokenizer


def message_renderer(model: Path | str, revision: str | None = None) -> Callable[[str], str]:
    """Return a function from a user's message to the prompt that ends where the answer begins.

    The opening token (``<s>``) is left out, which a tokenizer puts in front by itself.

    Raises ``ModelError`` if the model has no chat template, or one that refuses the message.
    """
    tokenizer = load_tokenizer(model, revision)
    if not tokenizer.chat_template:
        raise ModelError(
            f"{model}: its tokenizer has no chat template; evaluate an instruct model, or use the "
            "template biomistral or meditron"
        )

    def render(message: str) -> str:
        messages = [{"role": "user", "content": message}]
        try:
            prompt: str = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except TemplateError as error:
            raise ModelError(f"{model}: its chat template fails ({error})") from None
        return prompt.removeprefix(tokenizer.bos_token or "")

    return render
