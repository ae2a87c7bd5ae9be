"""Control tokens inside a prompt: which of its characters are one, and which only look like it.

A chat template writes control tokens (``<|im_start|>``) as text, and a question may quote the same
characters. So in a prompt each control token that the template means stands between two marks, which
no text has (``records.MARKS``, noncharacters of Unicode); all else is text. A prompt with marks says
all of its control tokens itself, the opening one too, as chat templates do.

Encoding: the text between two control tokens by itself, as the tokenizer does. Whether such a text is
written as at the start of an input or as inside of one (with or without ``▁``), whether blanks beside a
token are swallowed, and whether the whole equals what the tokenizer makes of the characters, is tried
out; a tokenizer of another kind is refused. Knows nothing about templates or questions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from biomistral.errors import ModelError
from biomistral.records import MARKS

Plain = Callable[[Sequence[str]], list[list[int]]]  # texts to ids, none of them a control token

_OPEN, _CLOSE = MARKS
_MARKED = re.compile(f"{_OPEN}([^{_CLOSE}]*){_CLOSE}")
_TRIAL = "Which herb?"


def mark(token: str) -> str:
    """Write a control token so that it is one."""
    return f"{_OPEN}{token}{_CLOSE}"


def is_marked(text: str) -> bool:
    """Whether a text has a control token."""
    return _OPEN in text


def without_marks(text: str) -> str:
    """Return the characters as a template writes them."""
    return _MARKED.sub(r"\1", text)


def mark_all(text: str, tokens: Sequence[str]) -> str:
    """Mark every occurrence of ``tokens`` in a text, longer ones first."""
    if not tokens:
        return text
    pattern = "|".join(map(re.escape, sorted(tokens, key=len, reverse=True)))
    return re.sub(pattern, lambda found: mark(found[0]), text)


class ControlEncoder:
    """Encode marked texts with a tokenizer; ``plain`` is how it encodes text that is only text."""

    def __init__(self, tokenizer: Any, plain: Plain) -> None:
        self._tokenizer = tokenizer
        self._plain = plain
        self._added = {str(token): token for token in tokenizer.added_tokens_decoder.values()}
        self._ids: dict[str, int] = tokenizer.get_added_vocab()
        self._is_inside: dict[str, bool] = {}  # by control token: how text behind it is written

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of marked texts.

        Raises ``ModelError`` if a token is none of the tokenizer's control tokens, or if they are not
        what the tokenizer itself would make of the characters.
        """
        encoded = [self._encode(text) for text in texts]
        for text, ids in zip((texts[0], texts[-1]), (encoded[0], encoded[-1]), strict=True):
            self._check(text, ids)
        return encoded

    def _encode(self, text: str) -> list[int]:
        parts = _MARKED.split(text)  # text, token, text, token, ..., text
        for token in parts[1::2]:
            self._id(token)
        ids: list[int] = []
        before = ""
        for place in range(0, len(parts), 2):
            after = parts[place + 1] if place + 1 < len(parts) else ""
            ids += self._between(before, parts[place], after)
            if after:
                ids.append(self._id(after))
            before = after
        meant = {self._id(token) for token in parts[1::2]}
        if sum(index in meant for index in ids) != len(parts) // 2:
            # Added tokens that are not special are found in any text; no option turns that off.
            raise ModelError(
                f"a question quotes one of {sorted(set(parts[1::2]))}, which this tokenizer can read "
                "only as the control token; use the template biomistral or meditron"
            )
        return ids

    def _between(self, before: str, text: str, after: str) -> list[int]:
        """Encode the text between two control tokens; an empty name is the end of the text."""
        if before and self._added[before].rstrip:
            text = text.lstrip()
        if after and self._added[after].lstrip:
            text = text.rstrip()
        if not text:
            return []
        if before and self._inside(before):
            return self._written_inside(text)
        return self._plain([text])[0]

    def _inside(self, token: str) -> bool:
        """Whether text behind a control token is written as inside of a text, not as at its start."""
        if token not in self._is_inside:
            whole = self._whole(token + _TRIAL)
            if whole == [self._id(token), *self._plain([_TRIAL])[0]]:
                self._is_inside[token] = False
            elif whole == [self._id(token), *self._written_inside(_TRIAL)]:
                self._is_inside[token] = True
            else:
                raise self._refusal(token)
        return self._is_inside[token]

    def _written_inside(self, text: str) -> list[int]:
        """Encode behind a line break, and take the break away."""
        broken, alone = self._plain(["\n" + text, "\n"])
        if broken[: len(alone)] != alone:
            raise self._refusal("")
        return broken[len(alone) :]

    def _id(self, token: str) -> int:
        if token not in self._ids:
            raise ModelError(
                f"the chat template means {token!r} as a control token, and the tokenizer has none of "
                "that name; use the tokenizer that belongs to the template"
            )
        return self._ids[token]

    def _check(self, text: str, ids: list[int]) -> None:
        """Compare with the tokenizer's own way, where no quoted control token stands in its way."""
        whole = self._whole(without_marks(text))
        added = set(self._ids.values())
        if sum(index in added for index in whole) == len(_MARKED.findall(text)) and whole != ids:
            raise self._refusal("")

    def _whole(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _refusal(self, token: str) -> ModelError:
        where = f" behind {token!r}" if token else ""
        return ModelError(
            f"the tokenizer writes text beside control tokens{where} in a way that cannot be done "
            "apart from them; use the template biomistral or meditron"
        )


def end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Ids that end an answer, as the model's generation config and the tokenizer say."""
    said = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = said if isinstance(said, list | tuple) else [said]
    return frozenset(index for index in [*ids, tokenizer.eos_token_id] if index is not None)
