"""What is sent for a question, and what is read off the reply. Pure.

Letters where log-probabilities are given (token texts are compared without blanks around them):

    letter      log of the summed probability of the listed tokens that are the letter (``A``, `` A``)
    published   the largest of them, and the text of the most probable token
    not listed  a letter that is not among the most probable tokens gets the largest value it can have:
                no more than the least of the listed, and no more than what all listed leave over

In a chat, models may open with a bracket or a star; the first generated token that is not such a mark
is the one that counts. Where no letter is listed there, or there are no log-probabilities, the words
are read. The first of these rules that finds something decides, and if it finds two different
letters, or one that is no choice, there is no answer:

    1. the text starts with a letter and an end, closing bracket, full stop, colon, comma or line break
       behind it, or with a letter in brackets
    2. ``answer`` followed by a letter, perhaps with ``is``, ``option`` or ``choice`` between
    3. a letter in round brackets

A choice named in words has the log-probability 0 and the others ``UNSAID``; without an answer, all
have it. Cloze: log-probabilities of the continuation's tokens as the server reads them back
(``echo``), summed, per UTF-8 byte.

Knows nothing about HTTP or files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, Self

import numpy as np

from biomistral.recipe.endpoints import EndpointModel
from biomistral.records import UNSAID

Api = Literal["completions", "chat"]
PATHS: Mapping[Api, str] = {"completions": "/completions", "chat": "/chat/completions"}
_MARKS = " \t\n\r([{*_`\"'▁Ġ"
_BLANKS = " \t\n\r▁Ġ"
_RULES = (
    re.compile(r"\A[\s*_`\"'#]*(?:\(\s*([A-Z])\s*\)|([A-Z])[*_`\"']*(?=\s*\Z|[).:,;]|[ \t]*\n))"),
    re.compile(
        r"(?i:\banswer)[\s*_`:]*(?i:is\b)?[\s*_`:]*(?i:option|choice|letter)?[\s*_`:(\"]*([A-Z])(?!\w)"
    ),
    re.compile(r"\(\s*([A-Z])\s*\)"),
)
_LEAST_REST = 1e-9  # of the probability: servers round, and the listed may sum to 1


class Mode(NamedTuple):
    """How a server is asked: by which of its doors, and for how many of the most probable tokens."""

    api: Api
    num_tops: int  # 0: the words of the answer are read


@dataclass(frozen=True, slots=True)
class Reply:
    """What is kept of a reply."""

    text: str
    # Of each generated token, its text and the most probable ones with log-probabilities, best first.
    tokens: list[tuple[str, list[tuple[str, float]]]]
    echoed: list[tuple[int, float | None]]  # place in the text and log-probability; only with echo
    num_prompt_tokens: int | None = None
    num_answer_tokens: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Self:
        """Return what ``to_json`` was made of."""
        tokens = [(text, [(t, v) for t, v in tops]) for text, tops in kept["tokens"]]
        echoed = [(place, value) for place, value in kept["echoed"]]
        counts = kept["num_prompt_tokens"], kept["num_answer_tokens"]
        return cls(kept["text"], tokens, echoed, *counts)


class Answer(NamedTuple):
    """What one letter question was answered."""

    logprobs: tuple[float, ...]
    top: str = ""  # the most probable token, or the letter said; published scoring only


def question_body(settings: EndpointModel, mode: Mode, prompt: str) -> dict[str, Any]:
    """What to send for a question with letters."""
    body: dict[str, Any] = {"model": settings.model, "temperature": 0}
    if mode.api == "completions":
        body |= {"prompt": prompt, "max_tokens": 1 if mode.num_tops else settings.answer_tokens}
        body |= {"logprobs": mode.num_tops} if mode.num_tops else {}
    else:
        system = [{"role": "system", "content": settings.system}] if settings.system else []
        body |= {
            "messages": [*system, {"role": "user", "content": prompt}],
            "max_tokens": settings.answer_tokens,
        }
        body |= {"logprobs": True, "top_logprobs": mode.num_tops} if mode.num_tops else {}
    return _with_parameters(body, settings)


def echo_body(settings: EndpointModel, text: str) -> dict[str, Any]:
    """What to send to have a text read back with the log-probability of each of its tokens."""
    # One token is generated and thrown away: some servers refuse to generate none.
    body = {"model": settings.model, "temperature": 0, "prompt": text, "max_tokens": 1}
    return _with_parameters({**body, "echo": True, "logprobs": 1}, settings)


def _with_parameters(body: dict[str, Any], settings: EndpointModel) -> dict[str, Any]:
    return {k: v for k, v in {**body, **settings.parameters}.items() if v is not None}


def read_reply(api: Api, data: Any) -> Reply:
    """Read a reply; raises ``ValueError``, ``LookupError`` or ``TypeError`` for a wrong shape."""
    choice = data["choices"][0]
    usage = data.get("usage") or {}
    counts = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    listed = choice.get("logprobs") or {}
    text = choice["message"]["content"] if api == "chat" else choice["text"]
    return Reply(_text(text or ""), _tokens(listed), _echoed(listed), *counts)


def _tokens(listed: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, float]]]]:
    """Generated tokens in the form of chats, which some servers use for completions too, or the old."""
    if content := listed.get("content"):
        return [
            (
                _text(item["token"]),
                _ranked((t["token"], t["logprob"]) for t in item["top_logprobs"]),
            )
            for item in content
        ]
    pairs = zip(listed.get("tokens") or [], listed.get("top_logprobs") or [], strict=False)
    return [(_text(token), _ranked((tops or {}).items())) for token, tops in pairs]


def _echoed(listed: Mapping[str, Any]) -> list[tuple[int, float | None]]:
    pairs = zip(listed.get("text_offset") or [], listed.get("token_logprobs") or [], strict=False)
    return [(int(place), None if value is None else _logprob(value)) for place, value in pairs]


def letter_answer(reply: Reply, letters: Sequence[str], *, published: bool) -> Answer:
    """Read the answer to a question with letters, by the rules at the top of this module."""
    tops = next((tops for text, tops in reply.tokens if tops and text.strip(_MARKS)), [])
    found = _listed(tops, letters, published=published)
    if found is not None:
        return Answer(found, tops[0][0] if published else "")
    place = letter_said(reply.text, letters)
    logprobs = tuple(0.0 if index == place else UNSAID for index in range(len(letters)))
    return Answer(logprobs, letters[place] if published and place is not None else "")


def letter_said(text: str, letters: Sequence[str]) -> int | None:
    """Index of the letter that a text names; None if it names none, or more than one."""
    for rule in _RULES:
        said = {next(filter(None, groups.groups())) for groups in rule.finditer(text)}
        if said:
            letter = said.pop()
            known = [name.strip() for name in letters]
            return known.index(letter) if not said and letter in known else None
    return None


def cloze_logprob(reply: Reply, prompt: str, continuation: str) -> float:
    """Log-probability per byte of a continuation that was read back behind its prompt.

    Raises ``ValueError`` if the reply has no number for it.
    """
    end = len(prompt) + len(continuation)
    starts = [place for place, _ in reply.echoed]
    ends = [*starts[1:], math.inf]
    # A token that reaches over the border counts with the continuation.
    values = [
        value
        for (start, value), stop in zip(reply.echoed, ends, strict=True)
        if start < end and stop > len(prompt)
    ]
    if not values or any(value is None for value in values):
        raise ValueError("no log-probabilities for the text sent")
    return math.fsum(value for value in values if value is not None) / len(continuation.encode())


def _listed(
    tops: Sequence[tuple[str, float]], letters: Sequence[str], *, published: bool
) -> tuple[float, ...] | None:
    """Log-probabilities of letters from a list of tokens; None if none of them is there."""
    of_letter = [[v for t, v in tops if t.strip(_BLANKS) == name.strip()] for name in letters]
    if not any(of_letter):
        return None
    rest = max(_LEAST_REST, 1.0 - math.fsum(math.exp(value) for _, value in tops))
    bound = min(tops[-1][1], math.log(rest))
    join: Callable[[list[float]], float] = max if published else np.logaddexp.reduce
    return tuple(min(0.0, float(join(values))) if values else bound for values in of_letter)


def _ranked(tops: Any) -> list[tuple[str, float]]:
    return sorted(((_text(t), _logprob(v)) for t, v in tops), key=lambda top: (-top[1], top[0]))


def _logprob(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number) or number > 1e-3:
        raise ValueError(f"{number} is no log-probability")
    return min(0.0, number)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None
