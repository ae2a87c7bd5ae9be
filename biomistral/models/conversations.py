"""A conversation as token ids, in the chat template of a model.

The control tokens of the template (``<|im_start|>``) are control tokens; what is said in a message
never is: a message that quotes ``</s>`` gets the tokens of those four characters. Where no message
holds the text of a control token the ids are those of ``apply_chat_template``. Knows nothing about
what is said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError

from biomistral.errors import InputError, ModelError

Message = Mapping[str, str]  # role: system, user or assistant; content
ROLES = ("system", "user", "assistant")


def conversation_ids(tokenizer: Any, messages: Sequence[Message], *, where: str = "") -> list[int]:
    """Return the ids of the prompt that ends where the next answer begins.

    ``where`` names the model in messages. Raises ``ModelError`` if the tokenizer has no chat template
    or one that refuses these messages, ``InputError`` if a message has no known role or no text.
    """
    where = where or "the model"
    _check(messages)
    if not tokenizer.chat_template:
        raise ModelError(
            f"{where}: its tokenizer has no chat template; use an instruct model, or generate from a "
            "plain prompt"
        )
    prompt = _rendered(tokenizer, messages, where)
    control = [token.content for token in tokenizer.added_tokens_decoder.values()]
    contents = [message["content"] for message in messages]
    if not any(token in content for token in control for content in contents):
        ids: list[int] = tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"]
        return ids
    return _with_quoted_control(tokenizer, messages, prompt, control, where)


def plain_ids(tokenizer: Any, text: str) -> list[int]:
    """Return the ids of a text that is to be continued: opening tokens, then text and only text."""
    opening: list[int] = tokenizer("", verbose=False)["input_ids"]
    if opening and opening[-1] == tokenizer.eos_token_id:
        opening = opening[:-1]
    return opening + _text_ids(tokenizer, text)


def _check(messages: Sequence[Message]) -> None:
    if not messages:
        raise InputError("conversation: there is no message; wanted is one or more")
    for index, message in enumerate(messages, start=1):
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            raise InputError(
                f"conversation: message {index} has the role {role!r}; allowed are "
                f"{', '.join(ROLES)}"
            )
        if not isinstance(content, str):
            raise InputError(
                f"conversation: message {index} has the content {content!r}; wanted is a text"
            )


def _rendered(tokenizer: Any, messages: Sequence[Message], where: str) -> str:
    try:
        prompt: str = tokenizer.apply_chat_template(
            [dict(message) for message in messages], tokenize=False, add_generation_prompt=True
        )
    except TemplateError as error:
        raise ModelError(f"{where}: its chat template fails ({error})") from None
    return prompt


def _with_quoted_control(
    tokenizer: Any, messages: Sequence[Message], prompt: str, control: Sequence[str], where: str
) -> list[int]:
    """As above, where messages hold texts of control tokens: cut at the template's own ones."""
    # Private characters stand for what is said; nobody types them, and no template changes them.
    marks = [f"\ue0f0{index}\ue0f1" for index in range(len(messages))]
    marked = _rendered(
        tokenizer,
        [{**message, "content": mark} for message, mark in zip(messages, marks, strict=True)],
        where,
    )
    said = dict(zip(marks, (message["content"] for message in messages), strict=True))
    if _filled(marked, said) != prompt:
        said = {mark: text.strip() for mark, text in said.items()}
        if _filled(marked, said) != prompt:
            raise InputError(
                f"{where}: a message holds the text of a control token, and the chat template changes "
                "messages, so the two cannot be told apart; leave the control token out"
            )
    ids: list[int] = []
    own = "|".join(re.escape(token) for token in sorted(control, key=len, reverse=True))
    for part in re.split(f"({own})", marked):
        if part in control:
            ids.append(tokenizer.convert_tokens_to_ids(part))
        elif part:
            ids += _text_ids(tokenizer, _filled(part, said))
    return ids


def _filled(marked: str, said: Mapping[str, str]) -> str:
    return re.sub("\ue0f0[0-9]+\ue0f1", lambda found: said[found[0]], marked)


def _text_ids(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text in which nothing is a control token."""

    def encode(part: str) -> list[int]:
        found: list[int] = tokenizer(
            part, add_special_tokens=False, split_special_tokens=True, verbose=False
        )["input_ids"]
        return found

    ids = encode(text)
    added = tokenizer.added_tokens_decoder
    if not any(index in added for index in ids):
        return ids
    # Tokens that were added and not marked as special are found even so; cut through their texts.
    own = "|".join(re.escape(t.content) for t in added.values() if len(t.content) > 1)
    cuts = [found.start() + 1 for found in re.finditer(own, text)]
    ends = [*cuts, len(text)]
    return [i for start, end in zip([0, *cuts], ends, strict=True) for i in encode(text[start:end])]
