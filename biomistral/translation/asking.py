"""A question at a time to a model behind an OpenAI-compatible endpoint, as the paper did.

All parts of a question go in one request and come back in one JSON object, so that their terms
agree. What is to stay as it is stands in the request. Where an answer had faults, they are told and
it is asked again. Every answer is kept by what was sent, so nothing is paid for twice.

Knows nothing about tasks or about which faults there are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from biomistral.languages import language_of
from biomistral.models.endpoints.answers import Answers
from biomistral.models.endpoints.asking import Asker, Call, call
from biomistral.models.endpoints.cost import check, estimate, token_counter
from biomistral.recipe.endpoints import EndpointModel
from biomistral.translation.parts import Parts, from_json, to_json
from biomistral.translation.terms import protected_terms
from biomistral.translation.wanted import Candidate, Wanted

_PATH = "/chat/completions"
_SYSTEM = """\
You translate multiple-choice questions of medical examinations from {source} to {language}.
You are given a JSON object. Answer with one JSON object of the same keys, and with nothing else.
Rules:
- Translate every text as a physician whose first language is {language} would write it.
- One term, one translation: what is named in the question is named alike in context and options.
- Keep the number, the order and the letters of the options. Options that differ must differ.
- Keep numbers, units, doses, abbreviations of genes and proteins as they are. Give drugs by their
  international nonproprietary name in {language}.
- Add nothing, explain nothing, answer nothing: the right option must not be told."""
# The answer is about as long as the question; Cyrillic and Arabic take up to four times the tokens.
_ANSWER_TOKENS_PER_CHARACTER = 1.2
_LEAST_ANSWER_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Words:
    """What an endpoint answered."""

    text: str
    num_prompt_tokens: int | None = None
    num_answer_tokens: int | None = None

    def to_json(self) -> Any:
        """Return it as a JSON value."""
        return [self.text, self.num_prompt_tokens, self.num_answer_tokens]

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read what ``to_json`` gave."""
        return cls(*value)

    @classmethod
    def of_reply(cls, reply: Any) -> Words:
        """Read a reply of the API; raises ``LookupError`` or ``TypeError`` if it is none."""
        text = reply["choices"][0]["message"]["content"]
        if not isinstance(text, str):
            raise TypeError("the message has no text")
        usage = reply.get("usage") or {}
        return cls(text, usage.get("prompt_tokens"), usage.get("completion_tokens"))


class EndpointTranslator:
    """Translates through an endpoint; answers are kept in ``answers``, a file of JSON lines."""

    def __init__(self, settings: EndpointModel, answers: Path) -> None:
        self.name = settings.model
        self._settings = settings
        self._count = token_counter(settings)
        self._asker = Asker(settings, Answers(answers), self._count, Words)

    def estimate(self, wanted: Sequence[Wanted]) -> str:
        """Say what one attempt at all of these costs; answers that are kept are free.

        Raises ``ModelError`` if that is above ``max_cost``.
        """
        due = {item.key: item for item in map(self._call, wanted)}
        bodies = [item.body for key, item in due.items() if self._asker.kept(key) is None]
        expected = estimate(bodies, self._settings, self._count)
        check(expected, self._settings)
        return expected.words

    def translate(
        self, wanted: Sequence[Wanted], done: Callable[[int], None] = lambda _: None
    ) -> Iterator[Candidate]:
        """Yield a candidate for each, in order; ``done`` is told how many answers are there."""
        calls = [self._call(item) for item in wanted]
        missing = [item for item in calls if self._asker.kept(item.key) is None]
        num_kept = len(calls) - len(missing)
        done(num_kept)
        for number, _ in enumerate(self._asker.ask(missing), start=num_kept + 1):
            done(number)
        for item, asked in zip(calls, wanted, strict=True):
            reply = self._asker.kept(item.key)
            assert reply is not None
            yield read_answer(reply.text, asked.source)

    def _call(self, wanted: Wanted) -> Call[Words]:
        return call(self._settings, _PATH, body_for(wanted, self._settings), Words.of_reply)


def body_for(wanted: Wanted, settings: EndpointModel) -> dict[str, Any]:
    """What to send for one question; after a failed attempt, with its answer and its faults."""
    shown = to_json(wanted.source)
    kept = [term.text for term in protected_terms(wanted.source.joined()) if term.kind != "drug"]
    if kept:
        shown["keep"] = list(dict.fromkeys(kept))
    messages = [
        {"role": "system", "content": _system(wanted)},
        {"role": "user", "content": _dumped(shown)},
    ]
    if wanted.faults:
        listed = "\n".join(f"- {fault}" for fault in wanted.faults)
        again = f"That has faults:\n{listed}\nAnswer with the whole JSON object, mended."
        messages += [
            {"role": "assistant", "content": wanted.before},
            {"role": "user", "content": again},
        ]
    length = len(wanted.source.joined())
    body: dict[str, Any] = {
        "model": settings.model,
        "messages": messages,
        "temperature": 0 if wanted.attempt == 0 else 0.3,
        "max_tokens": _LEAST_ANSWER_TOKENS + round(_ANSWER_TOKENS_PER_CHARACTER * length),
    }
    if wanted.attempt:
        body["seed"] = wanted.attempt  # else one answer of a deterministic server would come again
    given = {**body, **settings.parameters}
    return {key: value for key, value in given.items() if value is not None}


def read_answer(text: str, source: Parts) -> Candidate:
    """Find the JSON object in an answer: alone, in a code block, or between other words."""
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        return Candidate(None, text, ["the answer holds no JSON object"])
    try:
        value = json.loads(_without_trailing_commas(text[start : end + 1]))
        return Candidate(from_json(value, source), text)
    except (ValueError, RecursionError) as error:
        return Candidate(None, text, [f"the answer is not of the form asked for: {error}"])


def _system(wanted: Wanted) -> str:
    source, language = (
        language_of(code).name for code in (wanted.source_language, wanted.language)
    )
    return _SYSTEM.format(source=source, language=language)


def _without_trailing_commas(text: str) -> str:
    return re.sub(r",(\s*[}\]])", r"\1", text)


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1)
