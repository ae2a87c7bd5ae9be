"""What ``biomistral generate`` does: a text goes in, its continuation comes out as it is made.

Answers go to standard output and everything else to standard error, so that it fits in a pipe. Knows
nothing about how tokens are chosen.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console

from biomistral.advisory import ADVISORY
from biomistral.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from biomistral.models.generating import Engine, Finish, Sampling

_USUAL_LENGTH = 512  # tokens of an answer
_PRECISIONS = ("bfloat16", "float32")


@dataclass(frozen=True)
class Source:
    """Which model, as it was written."""

    model: str
    revision: str | None = None
    precision: str = "bfloat16"

    def __post_init__(self) -> None:
        if self.precision not in _PRECISIONS:
            raise InputError(
                f"--precision {self.precision}: is not known; allowed is {' or '.join(_PRECISIONS)}"
            )


@dataclass(frozen=True)
class Settings:
    """Options of an answer, as they were written; see ``Sampling`` for what they mean."""

    max_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def sampling(self, room: int) -> Sampling:
        """Return them for a prompt behind which there is room for so many tokens."""
        from biomistral.models.generating import Sampling

        values = dataclasses.asdict(self)
        longest = values.pop("max_tokens")
        # With no room at all the engine says so, with the numbers.
        return Sampling(max_new_tokens=longest or max(1, min(_USUAL_LENGTH, room)), **values)


@dataclass(frozen=True)
class Answer:
    """What was said, and what it cost."""

    text: str
    finish: Finish
    num_prompt_tokens: int
    num_tokens: int
    seconds: float


def generate(
    source: Source, prompt: str, settings: Settings, *, chat: bool, system: str | None
) -> None:
    """Continue a prompt, or the standard input, on the standard output."""
    from biomistral.models.conversations import conversation_ids, plain_ids

    if system is not None and not chat:
        raise InputError("generate: --system has no effect without --chat; add it or leave it out")
    settings.sampling(1)  # wrong values are said before the model is loaded
    # What echo and editors put behind the last line is no part of the text.
    text = sys.stdin.read().removesuffix("\n") if prompt == "-" else prompt
    engine, tokenizer = load(source)
    if chat:
        messages = [{"role": "system", "content": system}] if system is not None else []
        messages.append({"role": "user", "content": text})
        ids = conversation_ids(tokenizer, messages, where=source.model)
    else:
        ids = plain_ids(tokenizer, text)
    with engine:
        answer = stream(engine, ids, settings, write_now, bare_start=chat)
    if not answer.text.endswith("\n"):
        write_now("\n")
    console = errors()
    console.print(cost(answer), style="dim")
    console.print(ADVISORY, style="dim")


def load(source: Source) -> tuple[Engine, Any]:
    """Load a model and its tokenizer; return an engine that is not started, and the tokenizer."""
    with errors().status(f"loading {source.model}"):
        from biomistral.models.generating import Engine
        from biomistral.models.loading import load_model, load_tokenizer

        tokenizer = load_tokenizer(source.model, source.revision)
        precision: Any = source.precision
        model = load_model(source.model, revision=source.revision, precision=precision)
        return Engine(model, tokenizer, max_batch=1), tokenizer


def stream(
    engine: Engine,
    prompt_ids: list[int],
    settings: Settings,
    write: Callable[[str], None],
    *,
    bare_start: bool = False,
) -> Answer:
    """Write an answer as it comes. Ctrl-C ends it and is no error: what was said is returned.

    ``bare_start`` leaves out blanks before the first word, which chat templates bring about.
    """
    started = time.perf_counter()
    sampling = settings.sampling(engine.room(len(prompt_ids)))
    job = engine.submit(prompt_ids, sampling)
    said, num_tokens = "", 0
    finish: Finish = "cancelled"
    try:
        for piece in job.pieces():
            text = piece.text.lstrip() if bare_start and not said else piece.text
            said += text
            num_tokens += piece.token_id is not None
            write(text)
            finish = piece.finish or finish
    except KeyboardInterrupt:
        job.cancel()
    return Answer(said, finish, len(prompt_ids), num_tokens, time.perf_counter() - started)


def cost(answer: Answer) -> str:
    """Say how an answer ended and how fast it was."""
    ends = {"stop": "", "length": "; cut at its longest length", "cancelled": "; stopped"}
    speed = answer.num_tokens / answer.seconds if answer.seconds else 0.0
    return (
        f"{answer.num_prompt_tokens} tokens read, {answer.num_tokens} written in "
        f"{answer.seconds:.1f} s ({speed:.1f}/s){ends[answer.finish]}"
    )


def write_now(text: str) -> None:
    """Write to the standard output and wait for nothing."""
    sys.stdout.write(text)
    sys.stdout.flush()


def errors() -> Console:
    """The console of everything that is no answer."""
    return Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
