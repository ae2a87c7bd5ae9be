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
from biomistral.models.endpoints.client import Refused, is_about_content
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
_MOST_OBJECTS = 100  # that are tried in one answer


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
        choice = reply["choices"][0]
        text = choice["message"].get("content")
        # Of a question the model will not touch, or that it thought about for too long.
        if text is None and choice.get("finish_reason") in {"content_filter", "length"}:
            text = ""
        text = choice["message"].get("refusal") if text is None else text
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
            if reply is None:
                refused = f"the server refuses this question: {self._asker.refused[item.key]}"
                yield Candidate(None, "", [refused])
            else:
                yield read_answer(reply.text, asked.source)

    def _call(self, wanted: Wanted) -> Call[Words]:
        body = body_for(wanted, self._settings)
        return call(self._settings, _PATH, body, Words.of_reply, _is_about_one_question)


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
    if wanted.faults and wanted.before:
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
    """Find the JSON object in an answer: alone, in a code block, in another, after thinking aloud."""
    said = text.rpartition("</think>")[2]
    if "{" not in said or "}" not in said:
        return Candidate(None, text, ["the answer holds no JSON object"])
    try:
        return Candidate(from_json(_found_object(said), source), text)
    except (ValueError, RecursionError) as error:
        return Candidate(None, text, [f"the answer is not of the form asked for: {error}"])


def _found_object(text: str) -> Any:
    """Return the first object that has a question. Raises ``ValueError`` if there is none.

    Lines may end within texts, and commas stand before a closing bracket, as models like to write.
    """
    decoder = json.JSONDecoder(strict=False)
    wrong: Exception = ValueError("it has no object with a question")
    for form in (text, re.sub(r",(\s*[}\]])", r"\1", text)):
        starts = [match.start() for match in re.finditer("{", form)][:_MOST_OBJECTS]
        for number, start in enumerate(starts):
            try:
                value, _ = decoder.raw_decode(form, start)
            except (ValueError, RecursionError) as error:
                wrong = error if number == 0 else wrong
            else:
                if "question" in value:
                    return value
    raise wrong


def _is_about_one_question(refused: Refused) -> bool:
    """Whether other questions may be answered: this one is too long, or hurts the server's rules."""
    too_long = re.search(r"context.?(length|size|window)|too long", str(refused), re.IGNORECASE)
    return is_about_content(refused) or (refused.status in {400, 413, 422} and too_long is not None)


def _system(wanted: Wanted) -> str:
    source, language = (
        language_of(code).name for code in (wanted.source_language, wanted.language)
    )
    return _SYSTEM.format(source=source, language=language)


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1)
