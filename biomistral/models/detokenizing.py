"""From tokens, one after the other, to text that can be shown at once and is never taken back.

A token may be half a character, and it may be the start of a stop text. What cannot be shown yet is
held until it can. The pieces joined are the text of all tokens behind that of the prompt, up to the
first stop text. Knows nothing about models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# Tokens before a new one that are decoded with it: what a token reads as depends on those before,
# a blank at its start above all.
_CONTEXT = 6
_MOST_CONTEXT = 12
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"
_LONGEST_CHARACTER = 4  # bytes of UTF-8, and so byte tokens


class Detokenizer:
    """The text of one sequence as it grows."""

    def __init__(self, tokenizer: Any, prompt: Sequence[int], stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        # Groups of tokens that end where a character ends. One byte that is out of place makes some
        # tokenizers give up the whole run of bytes, so the context is only cut between groups.
        self._groups = [self._end_of(prompt)]
        self._text_before = self._decode(self._groups[0])
        self._waiting: list[int] = []  # tokens that end in the middle of a character
        self._held = ""  # text that may be the start of a stop text
        self.is_stopped = False  # a stop text was found; nothing comes after it

    def add(self, token: int) -> str:
        """Take one token more; return what can be shown now, perhaps nothing."""
        self._waiting.append(token)
        text = self._new_text()
        if text.endswith(_UNFINISHED) and len(self._waiting) < _LONGEST_CHARACTER:
            return ""
        self._settle()
        return self._show(_one_mark(text))

    def finish(self) -> str:
        """Return what is left at the end, unfinished characters and starts of stop texts."""
        if self.is_stopped:
            return ""
        shown = self._show(_one_mark(self._new_text())) if self._waiting else ""
        held, self._held, self._waiting = self._held, "", []
        return shown + held

    def _new_text(self) -> str:
        before = [token for group in self._groups for token in group]
        return self._decode(before + self._waiting)[len(self._text_before) :]

    def _settle(self) -> None:
        """Make the tokens that waited part of what comes before."""
        self._groups.append(self._waiting)
        self._waiting = []
        while sum(map(len, self._groups[1:])) >= _CONTEXT:
            del self._groups[0]
        self._text_before = self._decode([token for group in self._groups for token in group])

    def _end_of(self, prompt: Sequence[int]) -> list[int]:
        """The last tokens of the prompt, from the start of a character."""
        tails = [list(prompt[-number:]) for number in range(_CONTEXT, _MOST_CONTEXT + 1)]
        whole = (tail for tail in tails if not self._decode(tail).startswith(_UNFINISHED))
        return next(whole, tails[0])

    def _show(self, text: str) -> str:
        """Cut at a stop text; hold back what may become one."""
        text = self._held + text
        found = [place for stop in self._stop if (place := text.find(stop)) >= 0]
        if found:
            self.is_stopped, self._held = True, ""
            return text[: min(found)]
        length = max((_overlap(text, stop) for stop in self._stop), default=0)
        shown = text[: len(text) - length]
        self._held = text[len(shown) :]
        return shown

    def _decode(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(
            list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that is a beginning of ``stop``, but not all of it."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)


def _one_mark(text: str) -> str:
    """One mark for bytes at the end that make no character, however many there are."""
    bare = text.rstrip(_UNFINISHED)
    return text if text == bare else bare + _UNFINISHED
