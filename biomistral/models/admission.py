"""Who may begin: room is given to sequences as they grow, for nobody knows how long they become.

A sequence begins when there is room for what it has and, besides, for the next piece of each that
runs. Where that turns out too little, the one that came last gives up its place (``generating``).
Pure; knows nothing about models.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from biomistral.errors import InputError

# Tokens of an answer that room is made for at once. What there is already is copied then: a
# thousandth of the work of generating so many.
GROWTH = 256


class Claim(NamedTuple):
    """What one sequence has room for, and the most that it may come to; both in tokens."""

    held: int
    most: int

    def grown(self) -> int:
        """What it has room for after its next piece."""
        return min(self.held + GROWTH, self.most)


def may_begin(limit: int, wanted: int, running: Iterable[Claim]) -> bool:
    """Whether a sequence can begin with room for ``wanted`` tokens beside those that run."""
    return wanted + sum(each.grown() for each in running) <= limit


def check_length(
    num_prompt_tokens: int, num_answer_tokens: int, *, context_tokens: int, max_tokens: int
) -> None:
    """Raise ``InputError`` for a prompt and an answer that can never have the room they may want."""
    wanted = num_prompt_tokens + num_answer_tokens
    if wanted > context_tokens:
        raise InputError(
            f"generation: a prompt of {num_prompt_tokens} tokens and an answer of up to "
            f"{num_answer_tokens} are {wanted}, the model's context is {context_tokens}; shorten the "
            "prompt or ask for fewer tokens"
        )
    if wanted > max_tokens:
        raise InputError(
            f"generation: prompt and answer may come to {wanted} tokens, the memory set aside holds "
            f"{max_tokens}; shorten the prompt, ask for fewer tokens or raise max_tokens"
        )
