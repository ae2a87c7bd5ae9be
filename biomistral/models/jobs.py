"""A prompt, the answer as it grows, and the way from the thread that makes it to whoever reads it.

Knows nothing about models or about when a job gets its turn.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from biomistral.models.detokenizing import Detokenizer
from biomistral.models.sampling import Sampler, Sampling

Finish = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, slots=True)
class Piece:
    """A token more of an answer. ``text`` may be empty: more comes with a later token."""

    text: str
    token_id: int | None  # None only with "cancelled"
    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()  # the most probable tokens, as many as were asked for
    finish: Finish | None = None  # set in the last piece


class Job:
    """One prompt and the answer to it."""

    def __init__(self, prompt: Sequence[int], sampling: Sampling, tokenizer: Any) -> None:
        self.prompt = list(prompt)
        self.sampling = sampling
        self.is_cancelled = False
        self._news: queue.SimpleQueue[Piece | Exception] = queue.SimpleQueue()
        self._sampler = Sampler(sampling, prompt)
        self._text = Detokenizer(tokenizer, prompt, sampling.stop)
        self.generated: list[int] = []

    @property
    def num_tokens(self) -> int:
        """Tokens that prompt and answer may come to."""
        return len(self.prompt) + self.sampling.max_new_tokens

    @property
    def num_known(self) -> int:
        """Tokens of the prompt and of the answer as far as it is made."""
        return len(self.prompt) + len(self.generated)

    def pieces(self) -> Iterator[Piece]:
        """Yield the answer as it comes; waits. Leaving the loop early cancels the job.

        To be gone through once. Raises ``ModelError`` if the model gives NaN, and whatever else goes
        wrong while it runs.
        """
        try:
            while True:
                news = self._news.get()
                if isinstance(news, Exception):
                    raise news
                yield news
                if news.finish:
                    return
        finally:
            self.cancel()  # of no effect on a job that has ended

    def cancel(self) -> None:
        """Ask that the job ends with the next step; from any thread, at any time."""
        self.is_cancelled = True

    def take(self, logits: Any, eos: frozenset[int]) -> bool:
        """Choose a token by logits (V,), send the piece; return whether it was the last."""
        choice = self._sampler.choose(logits)
        token = choice.token_id
        self.generated.append(token)
        text = self._text.add(token)
        finish: Finish | None = None
        if self._text.is_stopped or (token in eos and not self.sampling.ignore_eos):
            finish = "stop"
        elif len(self.generated) == self.sampling.max_new_tokens:
            finish = "length"
        if finish:
            text += self._text.finish()
            finish = "stop" if self._text.is_stopped else finish
        self._news.put(Piece(text, token, choice.logprob, choice.top, finish))
        return finish is not None

    def end(self, reason: Exception | None = None) -> None:
        """Send the last piece of a cancelled job, or what went wrong."""
        self._news.put(reason or Piece(self._text.finish(), None, None, (), "cancelled"))
