"""A message in the chat template of a model. Knows nothing about what the message says.

Prompts are encoded as text (``continuations``), so a template that writes control tokens of its own
(``<|im_start|>``) is refused: they would arrive as the characters they are written with. That of
Mistral Instruct (``[INST] ... [/INST]``) writes none.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jinja2 import TemplateError

from biomistral.errors import ModelError
from biomistral.models.loading import load_tokenizer


def message_renderer(model: Path | str, revision: str | None = None) -> Callable[[str], str]:
    """Return a function from a user's message to the prompt that ends where the answer begins.

    The opening token (``<s>``) is left out, which a tokenizer puts in front by itself.

    Raises ``ModelError`` if the model has no chat template, one that refuses the message, or one
    that writes control tokens.
    """
    tokenizer = load_tokenizer(model, revision)
    if not tokenizer.chat_template:
        raise ModelError(
            f"{model}: its tokenizer has no chat template; evaluate an instruct model, or use the "
            "template biomistral or meditron"
        )

    special = tokenizer.all_special_tokens

    def render(message: str) -> str:
        messages = [{"role": "user", "content": message}]
        try:
            prompt: str = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except TemplateError as error:
            raise ModelError(f"{model}: its chat template fails ({error})") from None
        text = prompt.removeprefix(tokenizer.bos_token or "")
        control = [token for token in special if token in text and token not in message]
        if control:
            raise ModelError(
                f"{model}: its chat template writes the control tokens {control}, which prompts "
                "here cannot hold; use the template biomistral or meditron"
            )
        return text

    return render
